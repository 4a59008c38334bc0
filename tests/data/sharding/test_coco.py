"""COCO files: streamed reading equals json.loads, entries that cannot be used get a reason, files a clear error."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_dist.data.sharding import coco_json
from solo_dist.data.sharding.annotation import NUMBER, clean_annotation
from solo_dist.data.sharding.boxes import official_boxes
from solo_dist.data.sharding.catalogue import read_annotations, read_catalogue
from solo_dist.data.sharding.coco_image import CocoImage
from solo_dist.data.sharding.rejection import Rejection
from solo_dist.errors import Unusable

CATEGORIES = [{"id": 7, "name": "pear"}, {"id": 3, "name": "apple"}]
IMAGE = {"id": 1, "file_name": "a.jpg", "height": 12, "width": 16}
BOX = {"segmentation": [[2, 2, 10, 2, 10, 8, 2, 8]], "bbox": [2, 2, 8, 6], "area": 48.0, "iscrowd": 0}
ANNOTATION = {"id": 5, "image_id": 1, "category_id": 3, **BOX}
CLASS_OF = {3: 0, 7: 1}


def write(folder, values, name="instances.json"):
    path = folder / name
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return str(path)


def file_of(images=(IMAGE,), annotations=(ANNOTATION,), categories=CATEGORIES):
    return {"images": list(images), "annotations": list(annotations), "categories": list(categories)}


def test_categories_are_ordered_by_id_whatever_the_file_says(tmp_path):
    catalogue = read_catalogue(write(tmp_path, file_of()))
    assert catalogue.categories == [{"id": 3, "name": "apple"}, {"id": 7, "name": "pear"}]
    assert catalogue.images == [CocoImage(1, "a.jpg", 12, 16)] and not catalogue.rejected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(JSON, max_size=4),
    st.lists(JSON, max_size=4),
    JSON,
    st.integers(1, 40),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_streaming_gives_what_json_loads_gives(tmp_path_factory, images, annotations, info, chunk, indent, ascii):
    values = {"info": info, "annotations": annotations, "x": [1], "images": images, "categories": CATEGORIES}
    path = tmp_path_factory.mktemp("json") / "some.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=ascii), encoding="utf-8", errors="surrogatepass")
    read = {name: [] for name in coco_json.ARRAYS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_json, "_CHUNK", chunk)
        for name, element in coco_json.stream_arrays(str(path)):
            read[name].append(element)
    assert read == {"images": images, "annotations": annotations, "categories": CATEGORIES}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid json: it is empty"),
        (" \n\n", "not valid json: it is empty"),
        ("<!DOCTYPE html>", "Expecting value in line 1, column 1: it begins with '<!DOCTYPE html>'"),
        ("12", "not a COCO instances file: its top level"),
        ("[]", "its top level is not an object"),
        ("{}", "it has no images and no annotations and no categories"),
        ('{"images": []}', "it has no annotations and no categories"),
        ('{"images": {}, "annotations": [], "categories": []}', "its images are not a list"),
        ('{"images": 1', "its images are not a list"),
        ('{"images": [1 2]}', "not valid json"),
        ('{"images": [1,]}', "not valid json"),
        ('{"images": [1, {"a": ]}', "not valid json"),
        ('{"images": [],, "annotations": []}', "not valid json"),
        ('{"images": [] "annotations": []}', "not valid json"),
        ('{"images": [], "annotations": [], "categories": []', "not valid json"),
        ('{"images": [], "annotations": [], "categories": []} x', "not valid json"),
        ('{"images": [], "annotations": [' + "[" * 100_000, "not valid json"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "no usable image; image has no file_name"),
        ('{"images": [], "annotations": [], "categories": []}', "no usable image"),
    ],
)
def test_a_file_that_is_not_coco_gets_a_short_error(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(coco_json.CocoError, match=message) as caught:
        read_catalogue(path)
    assert path in str(caught.value) and len(str(caught.value)) < 400


def test_a_file_that_is_not_text_gets_a_short_error(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"images": ["\xff\xfe"]}')
    with pytest.raises(coco_json.CocoError, match="not valid json"):
        read_catalogue(str(tmp_path / "x.json"))
    for absent in (tmp_path / "none.json", tmp_path):
        with pytest.raises(coco_json.CocoError, match="There is no file"):
            read_catalogue(str(absent))


@pytest.mark.parametrize("end", range(1, 299, 7))
def test_a_truncated_file_is_an_error(tmp_path, end):
    text = json.dumps(file_of())
    assert len(text) == 300
    with pytest.raises(coco_json.CocoError):
        read_catalogue(write(tmp_path, text[:end]))


@pytest.mark.parametrize(
    "categories",
    [
        [],
        [{"id": 1}],
        [{"name": "x"}],
        [{"id": "one", "name": "x"}],
        [3],
        [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}],
    ],
)
def test_bad_categories_are_an_error(tmp_path, categories):
    with pytest.raises(coco_json.CocoError, match="categor"):
        read_catalogue(write(tmp_path, file_of(categories=categories)))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (3, "not an object"),
        ({**IMAGE, "id": "x"}, "id is not an integer"),
        ({**IMAGE, "id": True}, "id is not an integer"),
        ({**IMAGE, "id": 2**70}, "id is not an integer"),
        (IMAGE, "duplicate image id"),
        ({**IMAGE, "id": 2, "file_name": ""}, "no file_name"),
        ({**IMAGE, "id": 2, "file_name": None}, "no file_name"),
        ({**IMAGE, "id": 2, "height": -1}, "height or width"),
        ({**IMAGE, "id": 2, "width": "16 px"}, "height or width"),
        ({**IMAGE, "id": 2, "width": 2.5}, "height or width"),
        ({**IMAGE, "id": 2, "width": math.inf}, "height or width"),
        ({**IMAGE, "id": 2, "height": 40000}, "height or width"),
    ],
)
def test_unusable_images_are_rejected_with_a_reason(tmp_path, entry, reason):
    catalogue = read_catalogue(write(tmp_path, file_of(images=[IMAGE, entry])))
    assert [image.id for image in catalogue.images] == [1]
    assert [rejection.kind for rejection in catalogue.rejected] == ["image"]
    assert reason in catalogue.rejected[0].reason


def test_annotations_without_a_usable_image_are_rejected_and_the_others_numbered(tmp_path):
    entries = [
        ANNOTATION,
        "x",
        {**ANNOTATION, "id": None},
        ANNOTATION,
        {**ANNOTATION, "id": 6, "image_id": 99},
        {**ANNOTATION, "id": 7, "image_id": [1]},
        {**ANNOTATION, "id": 8, "image_id": "p1.jpg"},
        {**ANNOTATION, "id": 8, "image_id": "1"},
    ]
    path = write(tmp_path, file_of(annotations=entries))
    images = {image.id: image for image in read_catalogue(path).images}
    read = list(read_annotations(path, images))
    assert [(e["id"], e[NUMBER], e["image_id"]) for e in read if isinstance(e, dict)] == [
        (5, 1, 1),
        (None, 3, 1),
        (5, 4, 1),
        (8, 8, 1),
    ]
    assert [entry.reason for entry in read if isinstance(entry, Rejection)] == [
        "annotation is not an object",
        "no such image",
        "image_id is not an integer",
        "image_id is not an integer but text",
    ]


def clean(**changes):
    raw = {name: value for name, value in {**ANNOTATION, **changes}.items() if value is not ...}
    return clean_annotation(raw, CocoImage(1, "a.jpg", 12, 16), CLASS_OF)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"category_id": 4}, "unknown category"),
        ({"category_id": None}, "unknown category: category_id is missing"),
        ({"category_id": [3]}, "unknown category: category_id is not an integer"),
        ({"category_id": "apple"}, "unknown category: category_id is not an integer but text"),
        ({"segmentation": ...}, "empty segmentation"),
        ({"segmentation": 5}, "neither polygons nor RLE"),
        ({"segmentation": []}, "empty segmentation"),
        ({"segmentation": [[1, 2, 3, 4]]}, "fewer than 3 points"),
        ({"segmentation": {"size": [5, 5], "counts": [25]}}, "RLE size differs"),
        ({"segmentation": [[100, 100, 110, 100, 110, 110]]}, "no pixel"),
        ({"bbox": [1, 2, 3]}, "bbox"),
        ({"bbox": [1, 2, 3, math.nan]}, "bbox"),
        ({"bbox": "2 2 8 6"}, "bbox"),
        ({"area": "large"}, "area"),
        ({"area": math.inf}, "area"),
    ],
)
def test_unusable_annotations_have_a_reason(changes, reason):
    with pytest.raises(Unusable, match=reason):
        clean(**changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"iscrowd": 1}, "crowd"),
        ({"ignore": 1}, "ignore"),
        ({"area": 0}, "area not above 0"),
        ({"bbox": [2, 2, 0.5, 6]}, "box narrower"),
        ({"bbox": [2, 2, 8, 0.99]}, "box narrower"),
        ({"bbox": [2, 2, 1, 1]}, ""),
    ],
)
def test_what_is_not_trained_on_stays_for_evaluation(changes, reason):
    assert clean(**changes).untrainable.startswith(reason) and bool(clean(**changes).untrainable) == bool(reason)


def test_an_absent_area_or_box_is_taken_from_the_mask():
    for absent in (..., None, "", [], math.nan):
        annotation = clean(area=absent, bbox=absent)
        assert annotation.area == 48 and annotation.bbox == (2.0, 2.0, 8.0, 6.0) and annotation.category == 0


def test_official_boxes_include_their_last_pixel():
    boxes = official_boxes([[2, 3, 8, 6], (0.5, 0.25, 1, 1)])
    assert boxes.tolist() == [[2, 3, 9, 8], [0.5, 0.25, 0.5, 0.25]] and official_boxes([]).shape == (0, 4)
