"""Data that lies: each input in trouble/ and others of its kind are read right, or named; none ends in silence.

trouble/ holds drawn images and jsons after public reports of people who label images. `right` is a json without fault:
six masks on two images of 120 x 160. Most tests read a changed copy of it as the shard tool does, entry by entry.
"""

import copy
import gzip
import io
import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask

from solo_dist import json_text
from solo_dist.config import DataConfig, GridConfig
from solo_dist.data import image_io, pixel_range, schema
from solo_dist.data.sharding import coco_json, finish, images, inspection
from solo_dist.data.sharding.annotation import clean_annotation
from solo_dist.data.sharding.catalogue import read_annotations, read_catalogue
from solo_dist.data.sharding.coco_image import CocoImage
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.reading import Reading
from solo_dist.data.sharding.reasons import remedy
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.data.sharding.rejection import Rejection
from solo_dist.data.tiling import Tiling
from solo_dist.errors import ConfigError, Unusable

TROUBLE = Path(__file__).parent / "trouble"
GRID = GridConfig(levels=("p3",), sizes=(8,), scale_ranges=((1, 512),))
AS_IT_IS = Reading()
SETTINGS = ShardSettings(canvas=(64, 64), grid=GRID)
RIGHT = json.loads((TROUBLE / "bbox_is_not_around_its_mask/right.json").read_text())
FOLDER = TROUBLE / "bbox_is_not_around_its_mask/images"


class Read:
    """What the shard tool makes of a json, without making shards."""

    def __init__(self, path, reading=AS_IT_IS, folder=FOLDER):
        catalogue = read_catalogue(str(path), reading.drop_empty_categories)
        self.categories = catalogue.categories
        class_of = {category["id"]: i for i, category in enumerate(catalogue.categories)}
        rejected, raw_of = list(catalogue.rejected), {image.id: [] for image in catalogue.images}
        for entry in read_annotations(str(path), {image.id: image for image in catalogue.images}):
            if isinstance(entry, Rejection):
                rejected.append(entry)
            else:
                raw_of[entry["image_id"]].append(entry)
        self.images, self.kept, self.notices, self.pixels = [], [], Counter(), []
        for image in catalogue.images:
            try:
                read = images.read_entry(
                    image, (folder / image.file_name).read_bytes(), reading, raw_annotations=raw_of[image.id]
                )
            except Unusable as error:
                rejected.append(Rejection("image", image.id, image.file_name, str(error), error.detail))
                continue
            self.images.append(read.entry)
            self.pixels.append(np.asarray(read.rgb))
            self.notices.update(read.notices)
            for raw in raw_of[image.id]:
                try:
                    annotation = clean_annotation(raw, read.entry, class_of, reading)
                except Unusable as error:
                    rejected.append(Rejection("annotation", raw.get("id"), "", str(error), error.detail))
                    continue
                self.notices.update(annotation.notices)
                if annotation.untrainable:
                    rejected.append(Rejection("annotation", raw.get("id"), "", annotation.untrainable))
                else:
                    self.kept.append(annotation)
        self.rejected = dict(Counter(one.reason for one in rejected))
        self.details = [one.detail for one in rejected]

    @property
    def masks(self):
        return [coco_mask.decode(annotation.rle).astype(bool) for annotation in self.kept]


def write(folder, values):
    path = folder / "instances.json"
    path.write_text(json.dumps(values))
    return path


def changed(change, every=1):
    """RIGHT with `change(annotation)` made to all annotations, or to each `every`-th."""
    values = copy.deepcopy(RIGHT)
    for annotation in values["annotations"][::every]:
        change(annotation)
    return values


@pytest.fixture(scope="module")
def right():
    return Read(TROUBLE / "bbox_is_not_around_its_mask/right.json")


def assert_all_right(read, right):
    """The same masks, boxes, areas and classes as without fault, and nothing rejected."""
    assert read.rejected == {} and len(read.kept) == len(right.kept) == 6
    for one, other in zip(read.kept, right.kept, strict=True):
        assert coco_mask.decode(one.rle).tolist() == coco_mask.decode(other.rle).tolist()
        assert (one.bbox, one.area, one.category) == (other.bbox, other.area, other.category)


def test_the_right_json_has_nothing_to_say(right):
    assert len(right.kept) == 6 and right.rejected == {} and not right.notices


@pytest.mark.parametrize("name", ["coco128", "fruits_nuts18"])
def test_real_labels_have_few_notices(shared_data, name):
    folder = shared_data / name
    read = Read(folder / "instances.json", folder=folder / "images")
    assert set(read.rejected) <= {"crowd"}
    assert {kind for kind in read.notices if "orientation" not in kind} == set()


# ---- Text where a number or a boolean belongs, and other spellings of one thing


def text_of(*names, write=str):
    def change(annotation):
        for name in names:
            annotation[name] = write(annotation[name])

    return change


def nested_pairs(annotation):
    (flat,) = annotation["segmentation"]
    annotation["segmentation"] = [list(map(list, zip(flat[0::2], flat[1::2], strict=True)))]


def points_of(annotation):
    (flat,) = annotation["segmentation"]
    return [{"x": x, "y": y} for x, y in zip(flat[0::2], flat[1::2], strict=True)]


def via_shape(annotation):
    """VIA's own json, put into a COCO json by hand."""
    x, y = ([point[axis] for point in points_of(annotation)] for axis in "xy")
    annotation["segmentation"] = {"name": "polygon", "all_points_x": x, "all_points_y": y}


SPELLINGS = {
    "points are objects": lambda a: a.update(segmentation=[points_of(a)]),
    "points are objects in no list": lambda a: a.update(segmentation=points_of(a)),
    "shape of VIA": via_shape,
    "polygon is nested too deep": text_of("segmentation", write=lambda polygons: [polygons]),
    "polygon is nested much too deep": text_of("segmentation", write=lambda polygons: [[[polygons]]]),
    "pairs are nested too deep": lambda a: (nested_pairs(a), a.update(segmentation=[a["segmentation"]])),
    "iscrowd is text": text_of("iscrowd"),
    "iscrowd is false": text_of("iscrowd", write=bool),
    "iscrowd is the text false": text_of("iscrowd", write=lambda value: "False"),
    "iscrowd is null": text_of("iscrowd", write=lambda value: None),
    "iscrowd is 0.0": text_of("iscrowd", write=float),
    "iscrowd is missing": lambda annotation: annotation.pop("iscrowd"),
    "ignore is text": lambda annotation: annotation.update(ignore="0"),
    "image_id is text": text_of("image_id"),
    "image_id is text with zeros": text_of("image_id", write="{:012d}".format),
    "ids are floats of a data frame": text_of("id", "image_id", "category_id", "iscrowd", write=float),
    "category_id is text": text_of("category_id"),
    "category_id is text of a float": text_of("category_id", write="{:.1f}".format),
    "area is text": text_of("area"),
    "bbox is of text": text_of("bbox", write=lambda box: [f" {value} " for value in box]),
    "bbox is the text of a list": text_of("bbox"),
    "segmentation is the text of a list": text_of("segmentation"),
    "polygon is not nested": text_of("segmentation", write=lambda polygons: polygons[0]),
    "polygon is of text": text_of("segmentation", write=lambda polygons: [list(map(str, polygons[0]))]),
    "polygon is of pairs": nested_pairs,
    "pairs are not nested": lambda a: (nested_pairs(a), a.update(segmentation=a["segmentation"][0])),
    "id is missing": lambda annotation: annotation.pop("id"),
    "id is null": text_of("id", write=lambda value: None),
    "id is a word": text_of("id", write=lambda value: f"uuid-{value}"),
    "id is the same for all": text_of("id", write=lambda value: 1),
    "id is negative": text_of("id", write=lambda value: -value),
    "id is beyond 64 bits": text_of("id", write=lambda value: 2**70 + value),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_what_can_mean_one_thing_only_is_read(tmp_path, right, name):
    read = Read(write(tmp_path, changed(SPELLINGS[name])))
    assert_all_right(read, right)
    assert not read.notices and [one.id for one in read.kept] == [1, 2, 3, 4, 5, 6]


def test_text_in_images_and_categories_is_read(tmp_path, right):
    values = copy.deepcopy(RIGHT)
    for image in values["images"]:
        image.update(id=str(image["id"]), width=str(image["width"]), height=f"{image['height']}.0")
    for category in values["categories"]:
        category["id"] = f"{category['id']}"
    assert_all_right(Read(write(tmp_path, values)), right)


@pytest.mark.parametrize("path", ["iscrowd_text_0.json", "via_export.json"])
def test_inputs_that_lost_every_instance_are_read(path, right):
    assert_all_right(Read(TROUBLE / "no_instance_left" / path), right)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("iscrowd", "maybe", "iscrowd is neither 0 nor 1"),
        ("iscrowd", 2, "iscrowd is neither 0 nor 1"),
        ("ignore", [], "ignore is neither 0 nor 1"),
        ("image_id", "p1.jpg", "image_id is not an integer but text"),
        ("image_id", None, "image_id is missing"),
        ("image_id", 1.5, "image_id is not an integer"),
        ("image_id", 77, "no such image"),
        ("category_id", "box", "unknown category: category_id is not an integer but text"),
        ("category_id", None, "unknown category: category_id is missing"),
        ("category_id", 77, "unknown category"),
        ("bbox", "126 53 26 32", "bbox is not four finite numbers"),
        ("bbox", {"x": 1, "y": 2}, "bbox is not four finite numbers"),
        ("area", "832 px", "area is not a finite number"),
        ("segmentation", [[0.1, 0.1, 0.9, 0.1, 0.9, 0.8]], "polygon is in fractions of the image, not in pixels"),
        ("segmentation", [[300, 10, 400, 10, 400, 80]], "mask covers no pixel of the image"),
        ("segmentation", {"size": [160, 120], "counts": [0, 50, 19150]}, "RLE size differs from the image"),
        ("segmentation", [[]], "polygon of fewer than 3 points"),
        ("segmentation", [[[]]], "polygon coordinate is not a finite number"),
        ("segmentation", [[[1, 2, 2], [5, 2, 2], [5, 9, 2]]], "polygon coordinate is not a finite number"),
        ("segmentation", [1, 2, 3, 4], "polygon of fewer than 3 points"),
        ("segmentation", {"size": [120, 160], "counts": "b'no RLE"}, "RLE counts are damaged"),
        ("segmentation", {"all_points_x": [1, 2], "all_points_y": [1]}, "segmentation is neither polygons nor RLE"),
        ("segmentation", "rectangle", "segmentation is neither polygons nor RLE"),
    ],
)
def test_what_cannot_be_read_is_named_as_such(tmp_path, field, value, reason):
    read = Read(write(tmp_path, changed(lambda annotation: annotation.update({field: value}), every=3)))
    assert read.rejected == {reason: 2} and len(read.kept) == 4


# ---- Masks


def rle_of(annotation, write=lambda rle: rle):
    """The annotation with RLE in place of its polygon."""
    rle = coco_mask.frPyObjects(annotation["segmentation"], 120, 160)[0]
    flat = coco_mask.decode(rle).T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    annotation["segmentation"] = write({"size": [120, 160], "counts": counts})


@pytest.mark.parametrize(
    "write_rle",
    [
        lambda rle: rle,
        lambda rle: [rle],
        lambda rle: {"size": [120.0, 160.0], "counts": list(map(float, rle["counts"]))},
        lambda rle: {"size": ["120", "160"], "counts": list(map(str, rle["counts"]))},
        lambda rle: {"size": "[120, 160]", "counts": str(rle["counts"])},
        lambda rle: {"size": [120, 160], "counts": str(coco_mask.frPyObjects(rle, 120, 160)["counts"])},
        lambda rle: str(coco_mask.frPyObjects(rle, 120, 160)),
        str,
        json.dumps,
    ],
)
def test_rle_of_any_spelling(tmp_path, right, write_rle):
    assert_all_right(Read(write(tmp_path, changed(lambda annotation: rle_of(annotation, write_rle)))), right)


BAD_PARTS = {
    "a line": ([20.0, 20.0, 24.0, 21.0], "polygon of fewer than 3 points"),
    "a point": ([20.0, 20.0], "polygon of fewer than 3 points"),
    "nothing": ([], "polygon of fewer than 3 points"),
    "an x too many": ([20, 20, 30, 20, 30, 30, 7], "polygon has an x without a y"),
    "not a number": ([20, 20, 30, 20, 30, float("nan")], "polygon coordinate is not a finite number"),
    "infinity": ([20, 20, 30, 20, 30, float("inf")], "polygon coordinate is not a finite number"),
    "null": ([20, 20, 30, 20, 30, None], "polygon coordinate is not a finite number"),
    "a word": ("hole", "polygon coordinate is not a finite number"),
    "null alone": (None, "polygon coordinate is not a finite number"),
    "an object": ({"x": 1}, "segmentation is neither polygons nor RLE"),
}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", BAD_PARTS)
def test_a_bad_part_costs_the_part(tmp_path, right, name, first):
    part, reason = BAD_PARTS[name]

    def change(annotation):
        annotation["segmentation"].insert(0 if first else 1, part)

    read = Read(write(tmp_path, changed(change)))
    assert_all_right(read, right)
    assert read.notices == {f"a part of the mask is left out: {reason}": 6}


def test_the_input_with_a_bad_part(right):
    read = Read(TROUBLE / "one_bad_part/line.json")
    assert_all_right(read, right)
    assert read.notices == {"a part of the mask is left out: polygon of fewer than 3 points": 6}


def test_a_part_without_area_or_outside_changes_nothing(tmp_path, right):
    read = Read(write(tmp_path, changed(lambda a: a["segmentation"].append([20, 20, 30, 20, 25, 20]))))
    assert [mask.sum() for mask in read.masks] == [mask.sum() for mask in right.masks]


def test_several_parts_stay_one_instance(tmp_path, right):
    read = Read(write(tmp_path, changed(lambda a: a["segmentation"].append([2, 2, 8, 2, 8, 6, 2, 6]))))
    both = [mask.copy() for mask in right.masks]
    for mask in both:
        mask[2:6, 2:8] = True
    assert all((one == other).all() for one, other in zip(read.masks, both, strict=True))


@pytest.mark.parametrize("by", [5, 40, -30])
def test_masks_that_reach_out_of_the_image_are_counted(tmp_path, by):
    def change(annotation):
        annotation["segmentation"] = [[x + 140 + by if i % 2 == 0 else x for i, x in enumerate([0, 9, 20, 9, 20, 60])]]
        annotation["bbox"] = [140 + by, 9, 20, 51]

    read = Read(write(tmp_path, changed(change, every=6)))
    if by == 40:
        assert read.rejected == {"mask covers no pixel of the image": 1}
        assert read.details == ["x 180 to 200, y 9 to 60"]
    else:
        assert read.notices == ({"mask reaches out of the image and is cut off": 1} if by > 0 else {})


# ---- Boxes


def boxed(make):
    def change(annotation):
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = make(x, y, width, height)

    return change


BOXES = {
    "x1, y1, x2, y2": (lambda x, y, w, h: [x, y, x + w, y + h], ": it reads as x1, y1, x2, y2"),
    "centre": (lambda x, y, w, h: [x + w / 2, y + h / 2, w, h], ": it reads as its centre and size"),
    "rows first": (lambda x, y, w, h: [y, x, h, w], ": it reads as y, x, height, width"),
    "y1, x1, y2, x2": (lambda x, y, w, h: [y, x, y + h, x + w], ": it reads as y1, x1, y2, x2"),
    "half": (lambda x, y, w, h: [x / 2, y / 2, w / 2, h / 2], ": it is that of an image of another size"),
    "640 pixels": (lambda x, y, w, h: [x * 4, y * 5.3, w * 4, h * 5.3], ": it is that of an image of another size"),
    "of the image": (lambda x, y, w, h: [0, 0, 160, 120], ""),
    "shifted": (lambda x, y, w, h: [x + 9, y - 7, w, h], ""),
}


@pytest.mark.parametrize("name", BOXES)
def test_boxes_that_are_not_around_their_masks(tmp_path, right, name):
    make, words = BOXES[name]
    values = changed(boxed(make))
    read = Read(write(tmp_path, values))
    assert len(read.kept) == 6 and read.notices == {f"box is not around its mask{words}": 6}
    assert "--boxes=from_masks" in remedy("box is not around its mask" + words)
    read = Read(write(tmp_path, values), Reading(boxes="from_masks"))
    assert not read.notices and len(read.kept) == 6
    for one, other in zip(read.kept, right.kept, strict=True):
        assert one.bbox == tuple(coco_mask.toBbox(one.rle)) and np.abs(np.subtract(one.bbox, other.bbox)).max() <= 1


def test_the_input_with_corners_as_boxes():
    path = TROUBLE / "bbox_is_not_around_its_mask/xyxy.json"
    assert Read(path).notices == {"box is not around its mask: it reads as x1, y1, x2, y2": 6}
    assert not Read(path, Reading(boxes="from_masks")).notices


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y, w, h: [0, 0, 0, 0],
        lambda x, y, w, h: [x / 160, y / 120, w / 160, h / 120],
        lambda x, y, w, h: [x + w, y + h, -w, -h],
        lambda x, y, w, h: [x, y, 0, h],
        lambda x, y, w, h: [-1, -1, -1, -1],
    ],
)
def test_boxes_of_no_size_lose_the_instance_unless_masks_are_asked(tmp_path, make):
    path = write(tmp_path, changed(boxed(make)))
    assert Read(path).rejected == {"box narrower or lower than 1 pixel": 6}
    assert len(Read(path, Reading(boxes="from_masks")).kept) == 6
    path = write(tmp_path, changed(lambda annotation: annotation.update(area=0)))
    assert Read(path).rejected == {"area not above 0": 6}
    assert len(Read(path, Reading(boxes="from_masks")).kept) == 6


@pytest.mark.parametrize("off", [0, 1, 2])
def test_rounded_boxes_are_no_matter(tmp_path, off):
    assert not Read(write(tmp_path, changed(boxed(lambda x, y, w, h: [x - off, y, w + 2 * off, h])))).notices


# ---- Nothing left


def shard(path, output, settings=SETTINGS, folder=FOLDER, **changes):
    return shard_coco(ShardJob(str(path), str(folder), str(output), settings, **changes), 0, progress=False)


NOTHING_LEFT = {
    "crowds": (lambda annotation: rle_of(annotation) or annotation.update(iscrowd=1), "6 x crowd .--crowd=instance"),
    "crowds as text": (lambda annotation: annotation.update(iscrowd="true"), "6 x crowd .--crowd=instance"),
    "ignored": (lambda annotation: annotation.update(ignore=1), "6 x ignore"),
    "no boxes": (boxed(lambda x, y, w, h: [0, 0, 0, 0]), "6 x box narrower or lower than 1 pixel .--boxes=from_masks"),
    "boxes alone": (
        lambda annotation: annotation.update(segmentation=[]),
        "6 x empty segmentation .solo-dist import --format=coco --boxes=rectangles",
    ),
    "other images": (lambda annotation: annotation.update(image_id=70), "6 x no such image"),
    "names of images": (lambda annotation: annotation.update(image_id="p1"), "6 x image_id is not an integer but text"),
    "no category": (
        lambda annotation: annotation.update(category_id=None),
        "6 x unknown category: category_id is miss",
    ),
    "fractions": (
        lambda annotation: annotation.update(segmentation=[[0.1, 0.1, 0.9, 0.1, 0.5, 0.9]]),
        "6 x polygon is in fractions of the image",
    ),
}


JOB = ShardJob("x.json", "images", "shards", SETTINGS)


@pytest.mark.parametrize("name", NOTHING_LEFT)
def test_what_the_rejected_have_in_common_is_said_with_the_flag(tmp_path, name):
    change, words = NOTHING_LEFT[name]
    read = Read(write(tmp_path, changed(change)))
    assert read.kept == [] and sum(read.rejected.values()) == 6
    text = finish._no_instance(JOB, read.rejected)
    assert re.match(f"No instance of x.json is left to train on: {words}", text) and "\n" not in text


def test_several_reasons_are_all_named(tmp_path):
    values = changed(lambda annotation: annotation.update(iscrowd=1), every=2)
    for annotation in values["annotations"][1::2]:
        annotation["image_id"] = 5
    text = finish._no_instance(JOB, Read(write(tmp_path, values)).rejected)
    assert "3 x crowd (--crowd" in text and "3 x no such image" in text


def test_without_any_annotation_there_is_nothing_to_train_on():
    assert "x.json has no annotations, so there is nothing to train on" in finish._no_instance(JOB, {})


def test_boxes_of_zeros_of_the_input():
    path = TROUBLE / "no_instance_left/bbox_zeros.json"
    assert Read(path).rejected == {"box narrower or lower than 1 pixel": 6}
    assert len(Read(path, Reading(boxes="from_masks")).kept) == 6


def test_the_flag_in_the_error_helps_in_the_same_folder(tmp_path):
    path, output = TROUBLE / "no_instance_left/every_mask_is_a_crowd.json", tmp_path / "shards"
    for strict in (False, True):
        with pytest.raises(schema.ShardError, match="No instance of .* is left to train on: 6 x crowd .--crowd=inst"):
            shard(path, output, strict=strict)
        assert not schema.is_complete(str(output))
    manifest = shard(path, output, ShardSettings((64, 64), GRID, reading=Reading(crowd="instance")))
    assert manifest.num_instances == 6 and manifest.rejected == {} and manifest.notices == {}
    truth = json.loads(gzip.decompress(Path(manifest.annotations).read_bytes()))
    assert [entry["iscrowd"] for entry in truth["annotations"]] == [0] * 6


# ---- What the summary says


def test_the_summary_has_what_was_noticed_and_the_flags(tmp_path):
    values = changed(boxed(lambda x, y, w, h: [x, y, x + w, y + h]), every=2)
    values["annotations"][1].update(iscrowd=1)
    values["annotations"][3].update(iscrowd="1")
    values["annotations"][0].update(id=1)
    values["categories"] += [{"id": 0, "name": "fruits"}, {"id": 9, "name": "_background_"}]
    path = write(tmp_path, values)
    manifest = shard(path, tmp_path / "shards")
    text = inspection.summary(manifest, DataConfig())
    assert "4 kept, 2 crowd" in text
    assert "notice: 3 x box is not around its mask: it reads as x1, y1, x2, y2 (--boxes=from_masks" in text
    assert "2 of 6 masks are crowds, which are not trained on (--crowd=instance takes them as objects)" in text
    assert "2 of 4 categories have no instance: fruits, _background_ (--drop_empty_categories" in text
    lines = (tmp_path / "shards" / schema.NOTICES).read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 3, 5] and str(tmp_path / "shards" / schema.NOTICES) in text
    kept = Read(path, Reading(drop_empty_categories=True))
    assert [category["name"] for category in kept.categories] == ["disc", "box"]
    loaded = schema.load_manifest(str(tmp_path / "shards"))
    assert loaded == manifest and loaded.statistics["instances_of_category"] == [0, 1, 3, 0]


def test_one_file_under_two_ids_and_names_that_differ_in_case_only_are_said(tmp_path):
    values = copy.deepcopy(RIGHT)
    values["images"].append({**values["images"][0], "id": 5})
    values["annotations"][0]["image_id"] = 5
    values["categories"] += [{"id": 8, "name": "Box "}, {"id": 9, "name": 7}]
    for output, settings in (
        ("plain", SETTINGS),
        ("tiles", ShardSettings((64, 64), GRID, tiling=Tiling(120, 160, 0))),
    ):
        manifest = shard(write(tmp_path, values), tmp_path / output, settings)
        assert manifest.notices == {"image file is that of another image id too": 1}
        assert [category["name"] for category in manifest.categories] == ["disc", "box", "Box", "7"]
        text = inspection.summary(manifest, DataConfig())
        assert "1 x image file is that of another image id too (solo-dist import --format=coco joins" in text
        assert "'box', 'Box' (solo-dist import" in text and "disc" not in text.partition("only, are different")[2][:20]


@pytest.mark.parametrize("name", ["", " ", None, True, [], float("nan")])
def test_a_category_without_a_name_is_an_error(tmp_path, name):
    values = copy.deepcopy(RIGHT)
    values["categories"][0]["name"] = name
    with pytest.raises(coco_json.CocoError, match="needs an integer id and a name"):
        read_catalogue(str(write(tmp_path, values)))


def test_half_a_character_in_a_name_costs_the_character(tmp_path):
    """As programs that cut text at a number of bytes leave it; no file can hold it as UTF-8."""
    values = copy.deepcopy(RIGHT)
    values["categories"][0]["name"] = "apple \ud83c"
    values["images"].append({**values["images"][0], "id": 5, "file_name": "p\ud83c.jpg"})
    manifest = shard(write(tmp_path, values), tmp_path / "shards")
    assert "apple ?" in [category["name"] for category in schema.load_manifest(manifest.folder).categories]
    ((reason, count),) = manifest.rejected.items()
    assert reason.startswith("file_name has characters that are none") and count == 1


@pytest.mark.parametrize(("kind", "frames", "noticed"), [("TIFF", 2, 1), ("GIF", 2, 1), ("MPO", 2, 0), ("TIFF", 1, 0)])
def test_more_frames_than_the_first_are_said(kind, frames, noticed):
    first, *others = [PIL.Image.new("RGB", (64, 40), (60 * number, 9, 9)) for number in range(frames)]
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=frames > 1, append_images=others)
    made = images.read_entry(CocoImage(1, "a", 40, 64), buffer.getvalue(), Reading())
    assert made.notices == ("image has several frames or pages, and the first is taken",) * noticed
    assert np.asarray(made.rgb)[0, 0, 0] < 9


def test_no_annotation_of_any_category_is_an_error(tmp_path):
    path = write(tmp_path, changed(lambda annotation: annotation.update(category_id=5)))
    with pytest.raises(coco_json.CocoError, match="no annotation is of one of its categories"):
        read_catalogue(str(path), drop_empty_categories=True)


# ---- Ids


def test_negative_image_ids_are_ids_like_others():
    folder = TROUBLE / "negative_image_ids"
    read = Read(folder / "train.json", folder=folder / "images")
    assert [image.id for image in read.images] == [-1, 0, 1] and len(read.kept) == 9 and read.rejected == {}


@pytest.mark.parametrize(
    "ids", [(-1, -2), (0, -(2**62)), (-(2**63), 1), (2**63 - 1, 0), (-5, 7), (-1, 1), (-(2**63) + 1, 2**63 - 1)]
)
def test_any_image_ids_of_64_bits(tmp_path, ids):
    values = copy.deepcopy(RIGHT)
    for entry in values["images"]:
        entry["id"] = ids[entry["id"] - 1]
    for entry in values["annotations"]:
        entry["image_id"] = ids[entry["image_id"] - 1]
    read = Read(write(tmp_path, values))
    if min(ids) == schema.NO_IMAGE:
        assert read.rejected["image id is not an integer"] == 1
    else:
        assert len(read.kept) == 6 and {image.id for image in read.images} == set(ids)


@pytest.mark.parametrize(
    "id_of",
    [
        lambda number, image: 0,
        lambda number, image: number % 3,
        lambda number, image: image,
        lambda number, image: number // 2,
        lambda number, image: [1, "1", 1.0][number % 3],
        lambda number, image: [None, 7][number % 2],
    ],
)
def test_annotation_ids_of_any_kind_lose_nothing(tmp_path, right, id_of):
    values = copy.deepcopy(RIGHT)
    for number, annotation in enumerate(values["annotations"]):
        annotation["id"] = id_of(number, annotation["image_id"])
    read = Read(write(tmp_path, values))
    assert_all_right(read, right)
    assert [annotation.id for annotation in read.kept] == [1, 2, 3, 4, 5, 6]


def test_repeated_annotation_ids_lose_nothing():
    folder = TROUBLE / "repeated_annotation_ids"
    read = Read(folder / "train.json", folder=folder / "images")
    assert len(read.kept) == 9 and read.rejected == {}
    assert [annotation.id for annotation in read.kept] == list(range(1, 10))


# ---- Json that is damaged


def test_the_line_of_an_error_is_that_of_the_file(monkeypatch):
    path = TROUBLE / "json_error_position/missing_comma.json"
    for chunk in (1 << 22, 100):
        monkeypatch.setattr(coco_json, "_CHUNK", chunk)
        with pytest.raises(json.JSONDecodeError) as wanted:
            json.loads(path.read_text())
        with pytest.raises(coco_json.CocoError, match=f"line {wanted.value.lineno}, column {wanted.value.colno}"):
            read_catalogue(str(path))


TEXT = json.dumps({"info": {"x": 1.5}, **RIGHT}, indent=1)
LINES = TEXT.splitlines(keepends=True)


def without(rng, wanted):
    """TEXT without one of its characters `wanted`, which json cannot miss."""
    places = [i for i, letter in enumerate(TEXT) if letter == wanted]
    place = rng.choice(places)
    return TEXT[:place] + TEXT[place + 1 :]


@pytest.mark.parametrize("seed", range(12))
def test_errors_anywhere_have_their_line(tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    place = rng.randrange(20, len(LINES) - 20)
    text = {
        0: lambda: without(rng, ","),
        1: lambda: without(rng, ":"),
        2: lambda: "".join([*LINES[:place], "// a comment\n", *LINES[place:]]),
        3: lambda: TEXT.replace('"', "'"),
    }[seed % 4]()
    monkeypatch.setattr(coco_json, "_CHUNK", rng.choice([7, 64, 1 << 22]))
    with pytest.raises(json.JSONDecodeError) as wanted:
        json.loads(text)
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(coco_json.CocoError, match=rf"line {wanted.value.lineno}\b"):
        read_catalogue(str(path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("chunk", [1, 64, 1 << 22])
def test_the_line_is_that_of_an_editor_whatever_ends_lines(tmp_path, monkeypatch, end, encoding, chunk):
    place = len(LINES) // 2
    text = "".join([*LINES[:place], "oh no\n", *LINES[place:]])
    path = tmp_path / "x.json"
    path.write_bytes(text.replace("\n", end).encode(encoding))
    monkeypatch.setattr(coco_json, "_CHUNK", chunk)
    with pytest.raises(coco_json.CocoError, match=rf"line {place + 1}, column 1\b"):
        read_catalogue(str(path))
    with pytest.raises(json_text.NotJson, match=rf"line {place + 1}, column 1\b"):
        json_text.parse(path.read_bytes())


@pytest.mark.parametrize("share", [0.1, 0.3, 0.52, 0.77, 0.9, 0.9999])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_truncated_file_is_named_so(tmp_path, share, indent):
    text = json.dumps(RIGHT, indent=indent)
    text = text[: int(len(text) * share)]
    path = tmp_path / "x.json"
    path.write_text(text)
    line = text.count("\n") + 1
    with pytest.raises(coco_json.CocoError, match=f"it is truncated, it ends too early in line {line};"):
        read_catalogue(str(path))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-8-sig", "utf-8"])
def test_encodings_of_other_systems(tmp_path, right, encoding):
    path = tmp_path / "x.json"
    values = {"info": {"by": "Ærøskøbing 苹果"}, **RIGHT}
    path.write_text(json.dumps(values, ensure_ascii=False), encoding=encoding)
    assert_all_right(Read(path), right)
    assert json_text.parse(path.read_bytes()) == values


def test_text_that_is_not_utf_8_has_its_line(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_bytes(TEXT.replace('"box"', '"Bøks"').encode("latin-1"))
    line = TEXT[: TEXT.index('"box"')].count("\n") + 1
    for chunk in (50, 1 << 22):
        monkeypatch.setattr(coco_json, "_CHUNK", chunk)
        with pytest.raises(coco_json.CocoError, match=f"line {line} is not UTF-8 text"):
            read_catalogue(str(path))
    with pytest.raises(json_text.NotJson, match=f"line {line} is not UTF-8 text"):
        json_text.parse(path.read_bytes())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(TEXT.encode()), "it is compressed with gzip; unpack it"),
        (b"PK\x03\x04 and more", "it is compressed with zip; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1", "it begins with 'version https://git-lfs"),
        ((TEXT + "\n" + TEXT).encode(), "a file holds one json"),
        (TEXT[:-9].encode(), "it is truncated"),
        (b"[" * 100_000, "nested too deeply"),
        (b"", "it is empty"),
        (b"\r\n ", "it is empty"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, data, words):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(json_text.NotJson, match=words):
        json_text.parse(data)
    with pytest.raises(coco_json.CocoError, match=words if data[:1] != b"[" else "not valid json"):
        read_catalogue(str(path))


# ---- Sizes and turned images


def test_sizes_that_are_missing_are_taken_from_the_file(tmp_path, right):
    for absent in (None, 0, "", float("nan")):
        values = copy.deepcopy(RIGHT)
        values["images"][0].update(height=absent)
        values["images"][1].update(height=absent, width=absent)
        read = Read(write(tmp_path, values))
        assert_all_right(read, right)
        assert [(image.height, image.width) for image in read.images] == [(120, 160)] * 2
        assert read.notices == {"image size is missing in the json and taken from the file": 2}


def test_exchanged_sizes_are_seen_by_the_masks(tmp_path, right):
    values = copy.deepcopy(RIGHT)
    for image in values["images"]:
        image.update(height=160, width=120)
    path = write(tmp_path, values)
    read = Read(path)
    assert_all_right(read, right)
    assert read.notices == {"height and width are exchanged in the json and taken from the file": 2}
    read = Read(path, Reading(sizes="json"))
    assert read.rejected == {"image size differs from the json": 2} and "exchanged" in read.details[0]
    for annotation in values["annotations"]:  # these tell nothing: they fit either way
        annotation.update(segmentation=[[10, 10, 50, 10, 50, 60, 10, 60]], bbox=[10, 10, 40, 50], area=2000)
    path = write(tmp_path, values)
    assert Read(path).rejected == {"image size differs from the json": 2}
    read = Read(path, Reading(sizes="files"))
    assert len(read.kept) == 6 and read.notices == {"image size differs from the json and is taken from the file": 2}


def test_exchanged_sizes_are_seen_by_rle(tmp_path, right):
    values = changed(rle_of)
    for image in values["images"]:
        image.update(height=160, width=120)
    assert_all_right(Read(write(tmp_path, values)), right)


@pytest.mark.parametrize("size", [["a", None], [3], None, "x", [float("nan"), 1]])
def test_exchanged_sizes_and_rle_of_no_size(tmp_path, size):
    values = changed(lambda annotation: annotation.update(segmentation={"size": size, "counts": [19200]}))
    for image in values["images"]:
        image.update(height=160, width=120)
    assert Read(write(tmp_path, values)).rejected == {"image size differs from the json": 2}


def test_sizes_of_other_images_are_an_error_of_the_image(tmp_path):
    values = copy.deepcopy(RIGHT)
    for image in values["images"]:
        image.update(height=240, width=320)
    read = Read(write(tmp_path, values))
    assert read.rejected == {"image size differs from the json": 2}
    assert read.details[0] == "240 x 320 in the json, 120 x 160 in the file"


def orient(pixels, orientation):
    """Pixels as stored of an upright image."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    turns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}
    rows, columns = turns.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::rows, ::columns])


def drawn(orientation, kind):
    """An upright image of 40 x 64 with a bright corner, as a file."""
    upright = np.full((40, 64, 3), 60, np.uint8)
    upright[:10, :20] = 220
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    save = {"TIFF": {"tiffinfo": {0x0112: orientation}}, "JPEG": {"exif": exif, "quality": 95}}[kind]
    PIL.Image.fromarray(orient(upright, orientation)).save(buffer, kind, **save)
    return upright, buffer.getvalue()


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_images(orientation, kind):
    upright, data = drawn(orientation, kind)
    stored = orient(upright, orientation)

    def read(size, **reading):
        made = images.read_entry(CocoImage(1, "a", *size), data, Reading(**reading))
        assert (made.entry.height, made.entry.width) == made.rgb.size[::-1]
        return np.asarray(made.rgb).astype(int), made.notices

    def same(pixels, wanted):
        return pixels.shape == wanted.shape and np.abs(pixels - wanted).mean() < 3

    sideways = orientation >= 5
    pixels, notices = read(stored.shape[:2])
    assert same(pixels, stored)
    taken = {f"image is turned by its orientation tag, and taken {how}" for how in ("upright", "as stored")}
    assert set(notices) == (
        {"image is turned by its orientation tag, and taken as stored"} if orientation > 1 else set()
    )
    if sideways:
        pixels, notices = read(upright.shape[:2])
        assert same(pixels, upright) and len(set(notices) & taken) == 1
        with pytest.raises(Unusable, match="image size differs"):
            read(upright.shape[:2], orientation="stored")
    assert same(read(upright.shape[:2], orientation="upright")[0], upright)
    assert same(read(stored.shape[:2], orientation="stored")[0], stored)
    assert same(read((0, 0))[0], upright)
    assert same(np.asarray(image_io.to_rgb(image_io.open_image(data), True, (0, 1))).astype(int), upright)


def test_the_tiff_images_with_an_orientation():
    folder = TROUBLE / "tiff_with_orientation"
    read = Read(folder / "turned.json", folder=folder / "images")
    assert len(read.kept) == 6 and [pixels.shape for pixels in read.pixels] == [(120, 160, 3)] * 2
    assert read.notices == {"image is turned by its orientation tag, and taken as stored": 2}
    # Masks are on the objects, which have another colour than the ground.
    for annotation in read.kept:
        pixels = read.pixels[0 if annotation.id < 4 else 1].astype(int)
        inside = coco_mask.decode(annotation.rle).astype(bool)
        assert (np.abs(pixels[inside] - pixels[0, 0]).sum(axis=-1) > 60).mean() > 0.9, annotation.bbox


# ---- Images of more than 8 bits


def deep_entries(folder, arrays):
    entries = []
    for number, (name, values) in enumerate(arrays.items()):
        PIL.Image.fromarray(values).save(folder / name)
        entries.append(CocoImage(number, name, *values.shape))
    return entries


def eight_bits(folder, entry, found):
    made = images.read_entry(entry, (folder / entry.file_name).read_bytes(), Reading(), found)
    return np.asarray(made.rgb)[..., 0].astype(int), made.notices


SCENE = np.kron(np.array([[0, 1], [2, 3]]), np.ones((20, 30), int))
DEEP = {
    "12 bits": (lambda scene: (300 + 1200 * scene).astype(np.uint16), "png", (300, 3900)),
    "thermal": (lambda scene: (7291 + 128 * scene).astype(np.uint16), "png", (7291, 7675)),
    "up to 250": (lambda scene: (10 + 80 * scene).astype(np.uint16), "png", (10, 250)),
    "16 bits": (lambda scene: (21845 * scene).astype(np.uint16), "png", (0, 65535)),
    "signed": (lambda scene: (-1000 + 700 * scene).astype(np.int32), "tif", (-1000, 1100)),
    "32 bits": (lambda scene: (243137 + 100000 * scene).astype(np.int32), "tif", (243137, 543137)),
    "floating point": (lambda scene: (scene / 3).astype(np.float32), "tif", (0, 1)),
}


@pytest.mark.parametrize("name", DEEP)
def test_one_range_for_a_set_of_images(tmp_path, name):
    make, suffix, (low, high) = DEEP[name]
    dark = make(SCENE // 2)  # its own brightest value is not the brightest of the set
    entries = deep_entries(tmp_path, {f"a.{suffix}": make(SCENE), f"b.{suffix}": dark})
    found = images.find_range([str(tmp_path)], entries)
    assert found == pytest.approx((low, high))
    first, second = (eight_bits(tmp_path, entry, found)[0] for entry in entries)
    assert np.abs(first - SCENE * 85).max() <= 1 and np.abs(second - SCENE // 2 * 85).max() <= 1


def test_colours_of_16_bits(tmp_path):
    import tensorflow as tf

    values = np.stack([SCENE * 1000, SCENE * 500, 3000 - SCENE * 1000], axis=-1).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(values).numpy())
    entry = CocoImage(1, "a.png", 40, 60)
    found = images.find_range([str(tmp_path)], [entry])
    assert found == (0, 3000)
    rgb = np.asarray(images.read_entry(entry, (tmp_path / "a.png").read_bytes(), Reading(), found).rgb)
    assert np.abs(rgb - values / 3000 * 255).max() <= 1


def test_the_images_of_more_than_8_bits():
    folder = TROUBLE / "more_than_8_bits/images"
    names = ["16_bits_up_to_250.png", "the_same_with_one_pixel_of_300.png"]
    entries = [CocoImage(number, name, 120, 160) for number, name in enumerate(names)]
    found = images.find_range([str(folder)], entries)
    one, other = (eight_bits(folder, entry, found)[0] for entry in entries)
    assert (one != other).sum() <= 1 and one.min() == 0 and one.max() == 255
    names = sorted(path.name for path in folder.iterdir())
    entries = [CocoImage(number, name, 120, 160) for number, name in enumerate(names)]
    found = images.find_range([str(folder)], entries)
    assert found == (-270, 564705)
    # In such a mixture most images are nearly black, and each of these says so.
    flat = [name for name, entry in zip(names, entries, strict=True) if eight_bits(folder, entry, found)[1]]
    assert flat == [name for name in names if name != "32_bits.tif"]
    assert eight_bits(folder, entries[names.index("12_bits.png")], (0, 4095))[0].max() == round(2312 / 4095 * 255)


def test_images_of_8_bits_have_no_range(tmp_path):
    assert images.find_range([str(FOLDER)], [CocoImage(1, "p1.jpg", 120, 160)]) is None
    PIL.Image.fromarray(SCENE.astype(np.uint8)).save(tmp_path / "a.png")
    assert images.find_range([str(tmp_path)], [CocoImage(1, "a.png", 40, 60)]) is None


def test_the_range_is_in_the_manifest_and_part_of_the_settings(tmp_path):
    folder = TROUBLE / "more_than_8_bits"
    values = json.loads((folder / "train.json").read_text())
    values["images"] = values["images"][1:2]
    path = write(tmp_path, values)
    manifest = shard(path, tmp_path / "shards", folder=folder / "images")
    assert manifest.pixel_range == schema.load_manifest(manifest.folder).pixel_range == (7291, 7677)
    assert "--pixel_range=7291:7677 for other parts of the data" in inspection.summary(manifest, DataConfig())
    given = ShardSettings((64, 64), GRID, pixel_range=(7000, 8200))
    with pytest.raises(schema.ShardError, match="other data or settings"):
        shard(path, tmp_path / "shards", given, folder / "images")
    assert "notice" not in inspection.summary(manifest, DataConfig())


@pytest.mark.parametrize("text", ["5", "9:3", "a:b", "1:1", "0:inf", "nan:4"])
def test_a_range_that_is_none_is_a_mistake_in_the_flag(text):
    with pytest.raises(ConfigError, match="must be LOW:HIGH"):
        pixel_range.parse_range(text)
    assert pixel_range.parse_range("-1000:3000.5") == (-1000, 3000.5)
