"""COCO files in the form that each tool writes them, the values in them that are not what they should be, merging."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from solo_dist.errors import ConfigError, DataError
from solo_dist.importing.categories import parse_renames, with_categories
from solo_dist.importing.coco_json import report_path, summary, write_coco
from solo_dist.importing.coco_merge import load_json, read_coco
from solo_dist.importing.dataset import encode
from solo_dist.importing.inputs import check_output, json_files
from tests.importing.conftest import blob, changes, masks_of, reasons, save_image

HEIGHT, WIDTH = 60, 80
SQUARE = [10, 12, 30, 12, 30, 40, 10, 40]
BOX = [10, 12, 20, 28]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def read(path, images="", crowd="auto", boxes="reject"):
    return read_coco([str(path)], images, crowd, boxes)


def is_square(mask):
    return mask[12:40, 10:30].all() and mask.sum() == 560


def plain_rle(mask):
    """Uncompressed counts, column by column, beginning with background."""
    counts, value = [0], 0
    for pixel in mask.ravel(order="F").astype(int):
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"counts": counts, "size": list(mask.shape)}


# ---- Tools


def cvat(folder, **attributes):
    """CVAT, COCO 1.0: annotations/instances_default.json beside images/; polygons, and masks of the brush."""
    save_image(folder / "images/a.jpg", HEIGHT, WIDTH)
    common = {"image_id": 1, "attributes": {"occluded": False, **attributes}}
    brush = blob(HEIGHT, WIDTH, 1, hole=True)
    brush_box = coco_mask.toBbox(encode(brush)).tolist()
    content = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": [{"id": 1, "name": "cat", "supercategory": ""}, {"id": 2, "name": "dog", "supercategory": ""}],
        "images": [
            {
                "id": 1,
                "width": WIDTH,
                "height": HEIGHT,
                "file_name": "a.jpg",
                "license": 0,
                "flickr_url": "",
                "coco_url": "",
                "date_captured": 0,
            }
        ],
        "annotations": [
            {"id": 1, "category_id": 1, "segmentation": [list(map(float, SQUARE))], "area": 560.0, "bbox": BOX}
            | {"iscrowd": 0, **common},
            {"id": 2, "category_id": 2, "segmentation": plain_rle(brush), "area": float(brush.sum())}
            | {"bbox": brush_box, "iscrowd": 1, **common},
            {"id": 3, "category_id": 2, "segmentation": [], "area": 560.0, "bbox": BOX, "iscrowd": 0, **common},
        ],
    }
    return write(folder / "annotations/instances_default.json", content), brush


def test_cvat_brush_masks_are_objects(tmp_path):
    path, brush = cvat(tmp_path, rotation=0.0)
    dataset = read(path)
    square, painted = masks_of(dataset)["a.jpg"]
    assert square[:2] == ("cat", False) and is_square(square[2])
    assert painted[:2] == ("dog", False)
    np.testing.assert_array_equal(painted[2], brush)
    assert changes(dataset) == {"iscrowd=1 was read as an object; --crowd=crowd reads it as a crowd": 1}
    assert reasons(dataset) == {"annotation has a box and no mask; --boxes=rectangles takes it as a rectangle": 1}
    assert [one[1] for one in masks_of(read(path, crowd="crowd"))["a.jpg"]] == [False, True]
    assert is_square(masks_of(read(path, boxes="rectangles"))["a.jpg"][2][2])


def test_roboflow(tmp_path):
    """train/_annotations.coco.json among the images; category 0 is the project, and owns no annotation."""
    names = {"train": "p1_jpg.rf.3d8188ea5df2295147ff0e09e8adbc30.jpg", "valid": "p2_png.rf.0a1b2c3d.jpg"}
    for subset, name in names.items():
        save_image(tmp_path / subset / name, HEIGHT, WIDTH)
        write(
            tmp_path / subset / "_annotations.coco.json",
            {
                "info": {"year": "2024", "version": "3", "description": "Exported from roboflow.com"},
                "licenses": [{"id": 1, "url": "https://creativecommons.org/licenses/by/4.0/", "name": "CC BY 4.0"}],
                "categories": [
                    {"id": 0, "name": "berries", "supercategory": "none"},
                    {"id": 1, "name": "red", "supercategory": "berries"},
                    {"id": 2, "name": "unripe", "supercategory": "berries"},
                ],
                "images": [
                    {
                        "id": 0,
                        "license": 1,
                        "file_name": name,
                        "height": HEIGHT,
                        "width": WIDTH,
                        "date_captured": "2024-06-25T13:08:10+00:00",
                        "extra": {"name": "p.jpg"},
                    }
                ],
                "annotations": [
                    {"id": 0, "image_id": 0, "category_id": 1, "bbox": BOX, "area": 560}
                    | {"segmentation": [SQUARE], "iscrowd": 0},
                    {"id": 1, "image_id": 0, "category_id": 1, "bbox": BOX, "area": 560, "segmentation": []}
                    | {"iscrowd": 0},
                    {"id": 2, "image_id": 0, "category_id": 2, "bbox": BOX, "area": 99, "iscrowd": 0}
                    | {"segmentation": plain_rle(blob(HEIGHT, WIDTH, 3))},
                ],
            },
        )
    dataset = read_coco(json_files([str(tmp_path)], "")[0], "", "auto", "reject")
    assert dataset.categories == ["red", "unripe"]
    found = masks_of(dataset)
    assert found.keys() == set(names.values())
    for square, painted in found.values():
        assert is_square(square[2]) and square[0] == "red" and not square[1]
        np.testing.assert_array_equal(painted[2], blob(HEIGHT, WIDTH, 3))
    assert reasons(dataset) == {
        "category is only the root of others": 2,
        "annotation has a box and no mask; --boxes=rectangles takes it as a rectangle": 2,
    }


def test_a_root_with_the_name_of_its_class_or_with_annotations_stays(tmp_path):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    for root, category in ((["cat", "none"], 1), (["animals", "none"], 0)):
        content = coco([annotation(category_id=category)])
        content["categories"] = [
            {"id": 0, "name": root[0], "supercategory": root[1]},
            {"id": 1, "name": "cat", "supercategory": root[0]},
        ]
        dataset = read(write(tmp_path / "a.json", content))
        assert dataset.num_instances == 1
        assert dataset.categories == (["cat"] if category else ["animals", "cat"])


def test_label_studio(tmp_path):
    """result.json: ids from 0, an image without a size, backslashes, uploads in another folder, boxes, a task twice."""
    save_image(tmp_path / "images/0a1b2c3d-a.jpg", HEIGHT, WIDTH)
    save_image(tmp_path / "images/4e5f6a7b-b c.jpg", HEIGHT, WIDTH)
    polygon = {"segmentation": [SQUARE], "bbox": BOX, "ignore": 0, "iscrowd": 0, "area": 560.0}
    content = {
        "images": [
            {"width": WIDTH, "height": HEIGHT, "id": 0, "file_name": "images\\0a1b2c3d-a.jpg"},
            {
                "width": None,
                "height": None,
                "id": 1,
                "file_name": "../../label-studio/data/upload/1/4e5f6a7b-b%20c.jpg",
            },
            {"width": WIDTH, "height": HEIGHT, "id": 2, "file_name": "images/0a1b2c3d-a.jpg"},
            {"width": None, "height": None, "id": 3, "file_name": "images/gone.jpg"},
        ],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 0, **polygon},
            {"id": 1, "image_id": 1, "category_id": 1, **polygon},
            {"id": 2, "image_id": 1, "category_id": 1, **polygon, "segmentation": []},
            {"id": 0, "image_id": 2, "category_id": 1, **polygon},
            {"id": 4, "image_id": 2, "category_id": 0, **polygon},
            {"id": 5, "image_id": 3, "category_id": 0, **polygon},
        ],
        "info": {"year": 2024, "version": "1.0", "description": "", "contributor": "Label Studio", "url": ""},
    }
    dataset = read(write(tmp_path / "result.json", content))
    found = masks_of(dataset)
    assert [one[0] for one in found["0a1b2c3d-a.jpg"]] == ["cat", "dog"]
    assert [one[0] for one in found["4e5f6a7b-b c.jpg"]] == ["dog"]
    assert all(is_square(mask) for one in found.values() for _, _, mask in one)
    assert reasons(dataset) == {
        "annotation has a box and no mask; --boxes=rectangles takes it as a rectangle": 1,
        "image file not found, and its size is not in the json": 1,
        "image_id is that of no image": 1,
        "same mask and category as another annotation": 1,
    }
    assert changes(dataset) == {
        "image is listed twice: its annotations are joined": 1,
        "image size taken from the file": 1,
    }


@pytest.mark.parametrize("nested", [False, True])
def test_via(tmp_path, nested):
    """Image ids as text, flat polygons in older versions, null for a category without a number, points, doubled."""
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    number = 1 if nested else "1"
    shape = {"segmentation": [SQUARE] if nested else SQUARE, "area": 560, "bbox": BOX, "iscrowd": 0}
    content = {
        "info": {"year": 2021, "version": "1.0", "description": "VIA project exported to COCO format"},
        "images": [
            {"id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "a.jpg", "license": 0, "coco_url": "a.jpg"}
            | {"flickr_url": "a.jpg", "date_captured": ""}
        ],
        "annotations": [
            {**shape, "id": 1, "image_id": number, "category_id": 2},
            {**shape, "id": 2, "image_id": number, "category_id": 2},
            {**shape, "id": 3, "image_id": number, "category_id": None},
            {"segmentation": [[]], "area": [], "bbox": [], "iscrowd": 0, "keypoints": [3, 4, 2], "num_keypoints": 1}
            | {"id": 4, "image_id": number, "category_id": 1},
        ],
        "licenses": [{"id": 0, "name": "Unknown License", "url": ""}],
        "categories": [
            {"supercategory": "type", "id": 1, "name": "disc"},
            {"supercategory": "type", "id": 2, "name": "box"},
        ],
    }
    dataset = read(write(tmp_path / "via_export.json", content))
    ((category, crowd, mask),) = masks_of(dataset)["a.jpg"]
    assert (category, crowd) == ("box", False) and is_square(mask)
    assert reasons(dataset) == {
        "same mask and category as another annotation": 1,
        "category_id is missing": 1,
        "annotation has neither mask nor box": 1,
    }


def test_supervisely(tmp_path):
    """Category ids from 0, text "None", boxes without a mask, two polygons of one object, masks as plain RLE."""
    save_image(tmp_path / "ds/img/a.jpg", HEIGHT, WIDTH)
    mask = blob(HEIGHT, WIDTH, 5, hole=True)
    second = [50.0, 10.0, 60.0, 10.0, 60.0, 20.0, 50.0, 20.0]
    content = {
        "info": {"description": "COCO dataset converted from Supervisely", "url": "None", "version": "1.0"},
        "licenses": [{"url": "None", "id": 0, "name": "None"}],
        "images": [
            {"license": "None", "file_name": "a.jpg", "url": "None", "height": HEIGHT, "width": WIDTH, "id": 1}
            | {"date_captured": "2024-01-01T00:00:00.000Z", "sly_id": 7}
        ],
        "annotations": [
            {"id": 1, "segmentation": [SQUARE, second], "area": 660.0, "iscrowd": 0, "image_id": 1, "bbox": BOX}
            | {"category_id": 0},
            {"id": 2, "segmentation": [], "area": 560, "iscrowd": 0, "image_id": 1, "bbox": BOX, "category_id": 1},
            {"id": 3, "segmentation": plain_rle(mask), "area": 1, "iscrowd": 0, "image_id": 1, "bbox": BOX}
            | {"category_id": 1},
        ],
        "categories": [
            {"supercategory": "lemon", "id": 0, "name": "lemon"},
            {"supercategory": "kiwi", "id": 1, "name": "kiwi"},
        ],
    }
    dataset = read(write(tmp_path / "ds/ann/instances.json", content), str(tmp_path / "ds/img"))
    lemon, kiwi = masks_of(dataset)["a.jpg"]
    assert lemon[0] == "lemon" and lemon[2].sum() == 660
    assert kiwi[0] == "kiwi"
    np.testing.assert_array_equal(kiwi[2], mask)
    assert dataset.categories == ["lemon", "kiwi"]
    assert reasons(dataset) == {"annotation has a box and no mask; --boxes=rectangles takes it as a rectangle": 1}


@pytest.mark.parametrize("where", ["FiftyOne", "datumaro"])
def test_open_images_groups_are_crowds(tmp_path, where):
    save_image(tmp_path / "data/0001eeaf4aed83f9.jpg", HEIGHT, WIDTH)
    group = {"IsGroupOf": True} if where == "FiftyOne" else {"attributes": {"is_group_of": True, "score": 1.0}}
    single = {"IsGroupOf": False} if where == "FiftyOne" else {"attributes": {"is_group_of": False}}
    content = {
        "images": [{"id": 1, "file_name": "0001eeaf4aed83f9.jpg", "height": HEIGHT, "width": WIDTH, "license": None}],
        "categories": [{"id": 0, "name": "Flower", "supercategory": None}, {"id": 1, "name": "/m/0c9ph5"}],
        "annotations": [
            annotation(category_id=0, supercategory=None, **single),
            annotation(category_id=1, **group),
        ],
    }
    dataset = read(write(tmp_path / "labels.json", content))
    assert [one[:2] for one in masks_of(dataset)["0001eeaf4aed83f9.jpg"]] == [("Flower", False), ("/m/0c9ph5", True)]
    assert changes(dataset) == {"group of objects became a crowd": 1}


def test_the_shared_example_of_via(shared_folder):
    dataset = read(shared_folder("trouble/no_instance_left/via_export.json"))
    assert dataset.num_instances == 6 and not reasons(dataset)


# ---- Values


def annotation(**changes):
    return {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [SQUARE], "bbox": BOX, "iscrowd": 0} | changes


def coco(annotations, **image):
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH} | image],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}],
    }


@pytest.mark.parametrize(
    "values",
    [
        {"image_id": "1"},
        {"image_id": 1.0},
        {"category_id": " 1"},
        {"iscrowd": "0"},
        {"iscrowd": "false"},
        {"iscrowd": False},
        {"iscrowd": None},
        {"id": None},
        {"bbox": None},
    ],
)
def test_values_that_can_mean_one_thing_only_are_read(tmp_path, values):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    dataset = read(write(tmp_path / "a.json", coco([annotation(**values)])))
    ((category, crowd, mask),) = masks_of(dataset)["a.jpg"]
    assert (category, crowd) == ("cat", False) and is_square(mask) and not reasons(dataset)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"image_id": 2}, "image_id is that of no image"),
        ({"image_id": None}, "image_id is missing"),
        ({"category_id": 9}, "category_id is that of no category"),
        ({"category_id": True}, "category_id is not an integer"),
        ({"iscrowd": "maybe"}, "iscrowd is neither 0 nor 1"),
        ({"segmentation": None, "bbox": None}, "annotation has neither mask nor box"),
        ({"segmentation": [[300, 300, 320, 300, 320, 330]]}, "mask covers no pixel of the image"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}}, "RLE size differs from the image"),
    ],
)
def test_a_bad_annotation_costs_itself_only(tmp_path, values, reason):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    dataset = read(write(tmp_path / "a.json", coco([annotation(**values), annotation(), "none"])))
    assert dataset.num_instances == 1 and reasons(dataset) == {reason: 1, "annotation is not an object": 1}


def test_text_for_the_size_and_a_crowd(tmp_path):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    content = coco([annotation(iscrowd="1"), annotation(iscrowd=True)], height="60", width="80", id="1")
    assert [one[1] for one in masks_of(read(write(tmp_path / "a.json", content)))["a.jpg"]] == [True]
    crowd_as_objects = read(tmp_path / "a.json", crowd="instance")
    assert [one[1] for one in masks_of(crowd_as_objects)["a.jpg"]] == [False]


def test_images_that_contradict_themselves(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        save_image(tmp_path / name, HEIGHT, WIDTH)
    content = coco([annotation(), annotation(image_id=2), annotation(image_id=3)])
    content["images"] += [
        {"id": 1, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH},
        {"id": 2, "file_name": "c.jpg", "height": 2 * HEIGHT, "width": 2 * WIDTH},
        {"id": -3, "file_name": "c.jpg", "height": HEIGHT, "width": WIDTH},
    ]
    content["annotations"].append(annotation(image_id=-3))
    dataset = read(write(tmp_path / "a.json", content))
    assert {name: len(found) for name, found in masks_of(dataset).items()} == {"c.jpg": 1}
    assert reasons(dataset) == {
        "image id is that of another image too": 2,
        "height and width differ from the image file": 1,
        "image_id is that of no image": 3,
    }


def test_without_image_files_the_json_alone_is_converted(tmp_path):
    dataset = read(write(tmp_path / "annotations/a.json", coco([annotation()])))
    assert is_square(masks_of(dataset)["a.jpg"][0][2])
    assert changes(dataset) == {"image file not found: its name and size are taken from the json": 1}
    write_coco(dataset, str(tmp_path / "out.json"), "")
    assert json.loads((tmp_path / "out.json").read_text())["images"][0]["file_name"] == "a.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [], "annotations": [}', "not valid json.*line 1, column 32"),
        ("[]", "not COCO instances: it has no list of images"),
        ('{"images": [], "categories": []}', "no list of annotations"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": "1", "name": "b"}]}',
            "a and b both have the id 1",
        ),
    ],
)
def test_files_that_are_not_coco(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.json")


def test_input_files_are_found(tmp_path):
    for name in ("b.json", "a.json", "a.report.json", "splits/split_report.json"):
        write(tmp_path / name, {})
    wanted = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert json_files([str(tmp_path)], "") == (wanted, set(wanted))
    assert json_files([str(tmp_path)], f"{tmp_path}/./splits/../b.json") == (wanted[:1], set(wanted[:1]))
    assert json_files([str(tmp_path / "b.json"), str(tmp_path / "?.json")], "") == (wanted[::-1], set())
    assert json_files([str(tmp_path), wanted[1]], "") == (wanted[::-1], {wanted[0]})
    with pytest.raises(ConfigError, match="no such json file"):
        json_files([str(tmp_path / "c.json")], "")


def test_a_folder_is_read_again_without_what_was_written_into_it(tmp_path, monkeypatch):
    """The result, what `solo-dist split` makes of it, and files of other kinds are no labels."""
    monkeypatch.chdir(tmp_path)
    save_image(tmp_path / "mine/a.jpg", HEIGHT, WIDTH)
    output = "./mine/instances.json"
    for points in (SQUARE, [1, 1, 20, 1, 20, 20]):
        write(tmp_path / "mine/labels.json", coco([annotation(segmentation=[points])]))
        check_output(output, ["./mine"])
        paths, in_folders = json_files(["./mine"], output)
        dataset = read_coco(paths, "", "auto", "reject", in_folders)
        assert dataset.num_instances == 1
        write_coco(dataset, output, "")
        write(tmp_path / "mine/splits/train.json", json.loads((tmp_path / output).read_text()))
        write(tmp_path / "mine/settings.json", {})
    assert reasons(dataset) == {
        "json is not COCO instances": 1,
        "json was written by solo-dist import; name the file to read it": 1,
    }
    (tmp_path / "mine/cut.json").write_text((tmp_path / "mine/labels.json").read_text()[:-9])
    with pytest.raises(DataError, match="cut.json is not valid json"):  # it may be labels
        read_coco(["mine/cut.json"], "", "auto", "reject", {"mine/cut.json"})
    assert read_coco(["mine/splits/train.json"], "mine", "auto", "reject").num_instances == 1


def test_labels_are_never_the_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine/instances.json", coco([annotation()]))
    for given in ("mine/instances.json", "./mine", str(tmp_path), "mine/*.json"):
        with pytest.raises(ConfigError, match="--output=./mine/instances.json would replace a file of --input="):
            check_output("./mine/instances.json", ["mine/other.json", given])
    check_output("mine/new.json", ["mine"])


def test_a_bad_part_costs_the_part(tmp_path):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    parts = [[1, 2, 3, 4], SQUARE, [5, None, 6, 7, 8, 9], "text"]
    dataset = read(write(tmp_path / "a.json", coco([annotation(segmentation=parts)])))
    assert is_square(masks_of(dataset)["a.jpg"][0][2]) and not reasons(dataset)
    assert changes(dataset) == {"a part of the mask is left out": 3}


@pytest.mark.parametrize(
    "segmentation",
    [
        json.dumps([SQUARE]),
        [[SQUARE[:2], SQUARE[2:4], SQUARE[4:6], SQUARE[6:]]],
        [SQUARE[:2], SQUARE[2:4], SQUARE[4:6], SQUARE[6:]],
        [list(map(str, SQUARE))],
        {"size": ["60", 80.0], "counts": [612, 28.0] + ["32", 28] * 19 + [60 * 80 - 612 - 28 - 60 * 19]},
    ],
)
def test_outlines_and_rle_in_other_spellings(tmp_path, segmentation):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    dataset = read(write(tmp_path / "a.json", coco([annotation(segmentation=segmentation)])))
    assert is_square(masks_of(dataset)["a.jpg"][0][2]) and not reasons(dataset) and not changes(dataset)


def test_what_seems_wrong_is_said_with_the_annotation(tmp_path):
    """The import writes the boxes of masks, so nobody could see later that the given ones did not fit."""
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    x, y, width, height = BOX
    wide = [[60, 10, 100, 10, 100, 40]]
    bow = [[0, 30, 30, 58, 30, 30, 0, 58]]
    given = [
        annotation(id=7, bbox=[x, y, x + width, y + height]),
        annotation(id=8, segmentation=wide, bbox=[60, 10, 40, 30]),
        annotation(id=9, segmentation=bow, bbox=None),
        annotation(id=10, segmentation=[[1, 1, 9, "no", 9, 9]]),
        annotation(id=None, category_id=3),
    ]
    dataset = read(write(tmp_path / "a.json", coco(given)))
    assert changes(dataset) == {
        "box is not around its mask: it reads as x1, y1, x2, y2; the mask's own box is taken": 1,
        "mask reaches out of the image and is cut off": 1,
        "outline crosses itself": 1,
    }
    assert [entry.detail for entry in dataset.report.changed] == ["annotation 7", "annotation 8", "annotation 9"]
    assert [(entry.reason, entry.detail) for entry in dataset.report.left_out] == [
        ("polygon coordinate is not a finite number", "annotation 10: 'no'"),
        ("category_id is that of no category", "annotation number 5: 3"),
    ]


def test_entries_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "a.jpg").write_text("<html>not found</html>")
    content = coco([annotation()])
    content["images"].append({"id": 2, "file_name": "b.jpg", "height": "60 px", "width": WIDTH})
    content["categories"] += ["dog"]
    dataset = read(write(tmp_path / "a.json", content))
    assert [(entry.reason, entry.detail) for entry in dataset.report.left_out] == [
        ("category is not an object", "'dog'"),
        ("image does not decode", "image 1, 'a.jpg'"),
        ("height or width is no number of pixels", "image 2, 'b.jpg': '60 px'"),
        ("image_id is that of no image", "annotation 1: 1"),
    ]


def test_an_image_that_is_missing_takes_no_image_of_another_file(tmp_path):
    save_image(tmp_path / "images/v2/1.jpg", HEIGHT, WIDTH)
    first, second = coco([annotation()], file_name="v1/1.jpg"), coco([annotation()], file_name="v2/1.jpg")
    paths = [str(write(tmp_path / "a.json", first)), str(write(tmp_path / "b.json", second))]
    for given in (paths, paths[::-1]):
        dataset = read_coco(given, str(tmp_path / "images"), "auto", "reject")
        found = {image.path[-8:]: len(image.instances) for image in dataset.images}
        assert found == {"v1/1.jpg": 1, "v2/1.jpg": 1}
        assert changes(dataset) == {"image file not found: its name and size are taken from the json": 1}


def test_categories_that_differ_in_case_only_are_said_with_the_flag(tmp_path):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    content = coco([annotation(), annotation(category_id=2, segmentation=[[1, 1, 9, 1, 9, 9]], bbox=None)])
    content["categories"] += [{"id": 2, "name": "Cat "}, {"id": 3, "name": 5}]
    dataset = read(write(tmp_path / "a.json", content))
    assert dataset.categories == ["cat", "Cat", "5"]
    assert "differ in case and spaces only: cat, Cat (--rename=Cat:cat makes them one)" in summary(dataset)
    assert "differ" not in summary(with_categories(dataset, parse_renames(["Cat:cat"]), []))


def test_a_folder_in_place_of_a_json_is_said(tmp_path):
    with pytest.raises(ConfigError, match="--annotations=.* is a folder; give a json file"):
        load_json(str(tmp_path), "annotations")


def test_names_with_spaces_around_them(tmp_path):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    dataset = read(write(tmp_path / "a.json", coco([annotation()], file_name=" a.jpg\n")))
    assert [image.path for image in dataset.images] == [str(tmp_path / "a.jpg")] and not changes(dataset)


def test_nan_in_place_of_an_outline_leaves_the_box(tmp_path):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    path = write(tmp_path / "a.json", coco([annotation(segmentation=float("nan"))]))
    assert is_square(masks_of(read(path, boxes="rectangles"))["a.jpg"][0][2])


def test_an_image_that_is_missing_takes_no_image_of_another_entry(tmp_path):
    save_image(tmp_path / "images/v2/1.jpg", HEIGHT, WIDTH)
    content = coco(
        [annotation(), annotation(image_id=2, segmentation=[[1, 1, 9, 1, 9, 9]], bbox=None)], file_name="v1/1.jpg"
    )
    content["images"].append({"id": 2, "file_name": "v2/1.jpg", "height": HEIGHT, "width": WIDTH})
    dataset = read(write(tmp_path / "a.json", content), str(tmp_path / "images"))
    assert [(image.path[-8:], len(image.instances)) for image in dataset.images] == [("v1/1.jpg", 1), ("v2/1.jpg", 1)]
    assert changes(dataset) == {"image file not found: its name and size are taken from the json": 1}


@pytest.mark.parametrize("folder", ["images", "./images", "../{}/images/."])
def test_images_of_one_name_from_the_current_folder(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    for name in ("1.jpg", "a/1.jpg"):
        save_image(tmp_path / "images" / name, HEIGHT, WIDTH)
    content = coco([annotation(), annotation(image_id=2)], file_name="1.jpg")
    content["images"].append({"id": 2, "file_name": "a/1.jpg", "height": HEIGHT, "width": WIDTH})
    dataset = read(write(tmp_path / "a.json", content), folder.format(tmp_path.name))
    assert [len(image.instances) for image in dataset.images] == [1, 1]


def test_odd_files_and_values_cost_themselves_only(tmp_path):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    (tmp_path / "b.jpg").symlink_to("/nowhere/b.jpg")
    (tmp_path / "c.json").symlink_to("/nowhere/c.json")
    content = coco([annotation()])
    content["images"].append({"id": 2, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH})
    content["categories"][0]["supercategory"] = []
    write(tmp_path / "a.json", content)
    paths, in_folders = json_files([str(tmp_path)], "")
    dataset = read_coco(paths, "", "auto", "reject", in_folders)
    assert dataset.num_instances == 1
    assert reasons(dataset) == {
        "image file cannot be opened: is it a link to a file that is gone?": 1,
        "json is a link to a file that does not exist": 1,
    }


def test_sizes_that_are_exchanged_are_those_of_the_file(tmp_path):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    dataset = read(write(tmp_path / "a.json", coco([annotation()], height=WIDTH, width=HEIGHT)))
    assert is_square(masks_of(dataset)["a.jpg"][0][2])
    assert changes(dataset) == {"height and width are exchanged in the json: taken from the file": 1}


def test_many_crowds_are_said_with_the_flag(tmp_path):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    crowd = annotation(iscrowd=1, segmentation=plain_rle(blob(HEIGHT, WIDTH, 1)))
    dataset = read(write(tmp_path / "a.json", coco([annotation(), crowd])))
    assert "1 of 2 instances are crowds, which are not trained on (--format=coco --crowd=instance" in summary(dataset)


@pytest.mark.parametrize("place", ["{}2017/a.jpg", "images/{}2017/a.jpg"])
def test_images_of_the_subset_that_the_json_is_named_after(tmp_path, place):
    for subset in ("train", "val"):
        save_image(tmp_path / place.format(subset), HEIGHT, WIDTH)
        path = write(tmp_path / f"annotations/instances_{subset}2017.json", coco([annotation()]))
        assert [image.path for image in read(path).images] == [str(tmp_path / place.format(subset))]


def test_names_with_accents_in_either_spelling(tmp_path):
    save_image(tmp_path / "cafe\u0301.jpg", HEIGHT, WIDTH)
    dataset = read(write(tmp_path / "a.json", coco([annotation()], file_name="caf\u00e9.jpg")))
    assert dataset.num_instances == 1 and not changes(dataset)


# ---- Merging and categories


def test_files_about_the_same_and_about_other_images_are_merged(tmp_path):
    for name in ("one/a.jpg", "two/a.jpg"):
        save_image(tmp_path / name, HEIGHT, WIDTH)
    first, second = coco([annotation()]), coco([annotation(), annotation(category_id=2)], file_name="two/a.jpg")
    second["categories"] = [{"id": 2, "name": "cat"}, {"id": 1, "name": "kitten"}]
    third = coco([annotation(category_id=1)], file_name="../one/a.jpg")
    third["categories"] = [{"id": 1, "name": "dog"}]
    paths = [
        write(tmp_path / "one/first.json", first),
        write(tmp_path / "second.json", second),
        write(tmp_path / "two/third.json", third),
    ]
    dataset = read_coco(paths, str(tmp_path), "auto", "reject")
    by_path = {image.path[-9:]: [one.category for one in image.instances] for image in dataset.images}
    assert by_path == {"one/a.jpg": ["cat", "dog"], "two/a.jpg": ["kitten", "cat"]}
    assert dataset.categories == ["cat", "kitten", "dog"]
    merged = with_categories(dataset, parse_renames(["kitten:cat", "dog:hound"]), ["hound", "cat"])
    write_coco(merged, str(tmp_path / "out/all.json"), "")
    content = json.loads((tmp_path / "out/all.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "hound"}, {"id": 2, "name": "cat"}]
    assert [one["category_id"] for one in content["annotations"]] == [2, 1, 2, 2]
    assert [one["id"] for one in content["annotations"]] == [1, 2, 3, 4]
    assert sorted(image["file_name"] for image in content["images"]) == ["one/a.jpg", "two/a.jpg"]
    assert content["annotations"][0]["bbox"] == BOX and content["annotations"][0]["area"] == 560


def test_an_id_that_occurs_twice_costs_nothing_of_another_file(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        save_image(tmp_path / name, HEIGHT, WIDTH)
    second = coco([annotation()])
    second["images"].append({"id": 1, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH})
    paths = [write(tmp_path / "1.json", coco([annotation()])), write(tmp_path / "2.json", second)]
    dataset = read_coco(paths, "", "auto", "reject")
    assert {name: len(found) for name, found in masks_of(dataset).items()} == {"a.jpg": 1}
    assert reasons(dataset) == {"image id is that of another image too": 2, "image_id is that of no image": 1}


def test_categories_that_are_not_chosen_are_counted(drawn_dataset):
    count = sum(one.category == "dog" for image in drawn_dataset.images for one in image.instances)
    chosen = with_categories(drawn_dataset, {}, ["cat"])
    assert chosen.categories == ["cat"] and reasons(chosen) == {"category is not in --categories": count}
    with pytest.raises(ConfigError, match="--categories: there is no category cow; there are cat, dog"):
        with_categories(drawn_dataset, {}, ["cow"])
    with pytest.raises(ConfigError, match="--rename: there is no category cow"):
        with_categories(drawn_dataset, {"cow": "cat"}, [])
    with pytest.raises(ConfigError, match="--rename=cow must be OLD:NEW"):
        parse_renames(["cow"])


def test_nothing_kept_is_an_error_that_says_why(tmp_path):
    save_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    path = write(tmp_path / "a.json", coco([annotation(segmentation=[]), annotation(iscrowd=1)]))
    with pytest.raises(
        DataError, match=r"of 1 images, but 1 crowds, which .*--crowd=instance.*left out: 1 x annotation has a box"
    ):
        write_coco(read(path), str(tmp_path / "out.json"), "")
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert report_path("x/out.json") == "x/out.report.json" and len(report["left_out"]["entries"]) == 1
    assert not (tmp_path / "out.json").exists()


def test_the_summary_has_numbers_and_reasons(drawn_dataset):
    with_categories(drawn_dataset, {}, ["cat"])
    text = summary(drawn_dataset)
    assert "4 images (0 without instances)" in text and "  dog  0  (no instance)" in text and ", 1 crowds" in text
    assert "left out: 8 x category is not in --categories; for example" in text
