"""YOLO labels: data.yaml in its variants, rows of every kind, rings that other converters joined."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from solo_dist.errors import ConfigError, DataError
from solo_dist.importing.yolo import read_yolo
from tests.importing.conftest import changes, masks_of, reasons, save_image

HEIGHT, WIDTH = 60, 80
SQUARE = "0.125 0.2 0.375 0.2 0.375 0.7 0.125 0.7"
"""Columns 10 to 29, rows 12 to 41."""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def rows_of(tmp_path, *rows, names=("cat", "dog"), boxes="reject"):
    save_image(tmp_path / "images/a.png", HEIGHT, WIDTH)
    write(tmp_path / "labels/a.txt", "\n".join(rows) + "\n")
    write(tmp_path / "data.yaml", f"names: {list(names)}\ntrain: images\n")
    return read_yolo(str(tmp_path / "data.yaml"), "", boxes)


NAMES = {
    "a list": "names: [cat, dog]",
    "lines": "names:\n  - cat\n  - dog",
    "by index": "names:\n  0: cat\n  1: dog",
    "text indices": "names:\n  '1': dog\n  '0': cat",
    "with a count": "nc: 2\nnames: ['cat', 'dog']",
}
PLACES = {
    "relative folders": ("train: images/train\nval: images/val", "images/{}/{}.png", "labels/{}/{}.txt"),
    "path of here": ("path: .\ntrain: images/train\nval: images/val", "images/{}/{}.png", "labels/{}/{}.txt"),
    "path of another machine": (
        "path: /content/drive/set\ntrain: images/train\nval: images/val",
        "images/{}/{}.png",
        "labels/{}/{}.txt",
    ),
    "Roboflow": ("train: ../train/images\nval: ../val/images", "{}/images/{}.png", "{}/labels/{}.txt"),
    "lists of folders": ("train: [images/train]\nval:\n  - images/val", "images/{}/{}.png", "labels/{}/{}.txt"),
    "labels beside images": ("train: data/train\nval: data/val", "data/{}/{}.png", "data/{}/{}.txt"),
    "valid for val": ("train: train\nvalid: val", "{}/{}.png", "{}/{}.txt"),
}


@pytest.mark.parametrize("names", ["[no, 007]", "{0: no, 1: 007}", "{'0': 'no', '1': \"007\"}"])
def test_names_are_as_they_are_written(tmp_path, names):
    """YAML takes `no` for false, and 007 for 7."""
    save_image(tmp_path / "images/a.png", HEIGHT, WIDTH)
    write(tmp_path / "labels/a.txt", f"1 {SQUARE}\n")
    write(tmp_path / "data.yaml", f"nc: 2\nnames: {names}\ntrain: images\ntest:\n")
    dataset = read_yolo(str(tmp_path / "data.yaml"), "", "reject")
    assert dataset.categories == ["no", "007"] and masks_of(dataset)["a.png"][0][0] == "007"


def test_classes_of_one_name_are_one_category_and_said(tmp_path):
    dataset = rows_of(tmp_path, f"0 {SQUARE}", "2 0.5 0.2 0.9 0.2 0.9 0.7", names=["cat", "dog", "cat"])
    assert dataset.categories == ["cat", "dog"] and [one[0] for one in masks_of(dataset)["a.png"]] == ["cat", "cat"]
    assert changes(dataset) == {"several classes have one name: they become one category": 1}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("places", PLACES)
def test_variants_of_data_yaml(tmp_path, names, places):
    text, images, labels = PLACES[places]
    for subset, category in (("train", 0), ("val", 1)):
        save_image(tmp_path / images.format(subset, subset), HEIGHT, WIDTH)
        write(tmp_path / labels.format(subset, subset), f"{category} {SQUARE}\n")
    write(tmp_path / "data.yaml", f"{NAMES[names]}\n{text}\n")
    dataset = read_yolo(str(tmp_path), "", "reject")
    assert dataset.categories == ["cat", "dog"] and not reasons(dataset) and not changes(dataset)
    found = masks_of(dataset)
    assert {name: one[0][0] for name, one in found.items()} == {"train.png": "cat", "val.png": "dog"}
    for ((_, _, mask),) in found.values():
        assert mask[12:42, 10:30].all() and mask.sum() == 600
    assert masks_of(read_yolo(str(tmp_path / "data.yaml"), "validation", "reject")).keys() == {"val.png"}


def test_text_files_that_list_images(tmp_path):
    """As CVAT writes them."""
    for name in ("a", "b", "not listed"):
        save_image(tmp_path / f"images/train/{name}.png", HEIGHT, WIDTH)
        write(tmp_path / f"labels/train/{name}.txt", f"0 {SQUARE}\n")
    write(tmp_path / "train.txt", "data/images/train/a.png\n./images/train/b.png\n")
    write(tmp_path / "data.yaml", "path: ./\ntrain: train.txt\nnames: {0: cat}\n")
    assert masks_of(read_yolo(str(tmp_path), "", "reject")).keys() == {"a.png", "b.png"}


def test_yaml_that_points_to_another_folder(tmp_path):
    save_image(tmp_path / "sets/mine/images/a.png", HEIGHT, WIDTH)
    write(tmp_path / "sets/mine/labels/a.txt", f"0 {SQUARE}\n")
    write(tmp_path / "recipes/mine.yaml", "path: ../sets/mine\ntrain: images\nnames: [cat]\n")
    assert read_yolo(str(tmp_path / "recipes/mine.yaml"), "", "reject").num_instances == 1


def test_label_studio_has_classes_txt_instead(tmp_path):
    save_image(tmp_path / "images/a.png", HEIGHT, WIDTH)
    write(tmp_path / "labels/a.txt", f"1 {SQUARE}\n")
    write(tmp_path / "classes.txt", "cat\ndog\n")
    dataset = read_yolo(str(tmp_path), "", "reject")
    assert masks_of(dataset)["a.png"][0][0] == "dog" and dataset.categories == ["cat", "dog"]


def test_images_without_labels_have_no_objects(tmp_path):
    save_image(tmp_path / "images/empty.png", HEIGHT, WIDTH)
    save_image(tmp_path / "images/none.png", HEIGHT, WIDTH)
    write(tmp_path / "labels/empty.txt", "")
    dataset = rows_of(tmp_path, f"0 {SQUARE}")
    assert {name: len(found) for name, found in masks_of(dataset).items()} == {
        "a.png": 1,
        "empty.png": 0,
        "none.png": 0,
    }
    assert changes(dataset) == {"image has no label file: taken as an image without objects": 1}


def test_paths_relative_to_the_current_folder(tmp_path, monkeypatch):
    save_image(tmp_path / "images/train/a.png", HEIGHT, WIDTH)
    write(tmp_path / "labels/train/a.txt", f"0 {SQUARE}\n")
    write(tmp_path / "data.yaml", "names: [cat]\ntrain: images/train\n")
    monkeypatch.chdir(tmp_path)
    for source in ("data.yaml", "./data.yaml", "."):
        assert read_yolo(source, "", "reject").num_instances == 1


def test_parts_that_are_not_there_are_reported(tmp_path):
    """As Roboflow writes data.yaml; a part that was asked for has to be there."""
    save_image(tmp_path / "train/images/a.png", HEIGHT, WIDTH)
    write(tmp_path / "data.yaml", "names: [cat]\ntrain: ../train/images\nval: ../valid/images\ntest: ../test/images\n")
    dataset = read_yolo(str(tmp_path), "", "reject")
    assert len(dataset.images) == 1 and reasons(dataset) == {"entry of data.yaml without image files": 2}
    with pytest.raises(DataError, match="no image file found for ../test/images"):
        read_yolo(str(tmp_path), "test", "reject")


def test_listed_images_that_are_not_found_are_reported(tmp_path):
    for name in ("images/a.png", "images/x/c.png", "images/y/c.png"):
        save_image(tmp_path / name, HEIGHT, WIDTH)
    write(tmp_path / "train.txt", "images/a.png\nimages/b.png\n\n/elsewhere/c.png\n")
    write(tmp_path / "data.yaml", "names: [cat]\ntrain: train.txt\n")
    dataset = read_yolo(str(tmp_path), "", "reject")
    assert masks_of(dataset).keys() == {"a.png"}
    assert reasons(dataset) == {"listed image file not found": 1, "several image files have this name": 1}
    assert {entry.detail for entry in dataset.report.left_out} == {"images/b.png", "elsewhere/c.png"}
    write(tmp_path / "train.txt", "/elsewhere/c.png\n")
    with pytest.raises(DataError, match="no image file found for train.txt.*several image files have this name"):
        read_yolo(str(tmp_path), "", "reject")


def test_names_in_another_encoding_are_an_error_that_names_the_file(tmp_path):
    save_image(tmp_path / "images/a.png", HEIGHT, WIDTH)
    (tmp_path / "classes.txt").write_bytes("\u72d7\n".encode("gbk"))
    with pytest.raises(DataError, match="classes.txt is not UTF-8"):
        read_yolo(str(tmp_path), "", "reject")


# ---- Rows

LEFT_OUT = {
    "0 0.5 0.5 0.2 0.2": "row is a box, not a polygon; --boxes=rectangles takes it as a rectangle",
    "0 0.5 0.5 0.2 0.2 0.9": "row is a box, not a polygon; --boxes=rectangles takes it as a rectangle",
    "0 0.5 0.5": "row is neither a polygon nor a box",
    "0": "row is neither a polygon nor a box",
    "2 0.1 0.1 0.2 0.1 0.2 0.2": "class index has no name",
    "-1 0.1 0.1 0.2 0.1 0.2 0.2": "class index has no name",
    "0.5 0.1 0.1 0.2 0.1 0.2 0.2": "class index has no name",
    "cat 0.1 0.1 0.2 0.1 0.2 0.2": "value is not a finite number",
    "0 0.1 nan 0.2 0.1 0.2 0.2": "value is not a finite number",
    "0 10 12 30 12 30 42": "coordinates are not fractions of the image",
    "0 0.1 0.1 0.1 0.1 0.1 0.1": "no pixel inside the image",
}


@pytest.mark.parametrize("row", LEFT_OUT)
def test_a_bad_row_costs_itself_only(tmp_path, row):
    dataset = rows_of(tmp_path, row, "", f"0 {SQUARE}", f"1 {SQUARE}")
    assert dataset.num_instances == 2 and reasons(dataset) == {LEFT_OUT[row]: 1}
    assert dataset.report.left_out[0].file.endswith("labels/a.txt:1")


def test_boxes_can_be_rectangles(tmp_path):
    dataset = rows_of(tmp_path, "0 0.25 0.45 0.25 0.5", boxes="rectangles")
    ((_, _, mask),) = masks_of(dataset)["a.png"]
    assert mask[12:42, 10:30].all() and mask.sum() == 600


def test_coordinates_outside_are_cut_and_counted(tmp_path):
    dataset = rows_of(tmp_path, "0 -0.25 0.5 0.5 0.5 0.5 1.25 -0.25 1.25", f"0 {SQUARE}")
    mask = masks_of(dataset)["a.png"][0][2]
    assert mask[30:, :40].all() and mask.sum() == 30 * 40
    assert changes(dataset) == {"coordinates outside 0 to 1: cut at the edge of the image": 1}


def test_a_confidence_at_the_end_is_not_a_coordinate(tmp_path):
    dataset = rows_of(tmp_path, f"0 {SQUARE} 0.87")
    assert masks_of(dataset)["a.png"][0][2].sum() == 600
    assert changes(dataset) == {"last value of a row is a confidence: not used": 1}


def test_parts_that_another_converter_joined_come_apart(tmp_path):
    """Three squares of 6 x 6, walked to the last one and back, in six digits as such files have."""
    first, middle, last = (np.array([[4, 4], [10, 4], [10, 10], [4, 10]]) + (x, x / 3) for x in (0, 24, 48))
    walk = [first[[1, 2, 3, 0, 1]], middle[[0, 1]], last[[0, 1, 2, 3, 0]], middle[[1, 2, 3, 0]]]
    ring = np.concatenate(walk) / (WIDTH, HEIGHT)
    dataset = rows_of(tmp_path, "0 " + " ".join(f"{value:g}" for value in ring.ravel()))
    wanted = np.zeros((HEIGHT, WIDTH), bool)
    for x in (4, 28, 52):
        y = 4 + (x - 4) // 3
        wanted[y : y + 6, x : x + 6] = True
    np.testing.assert_array_equal(masks_of(dataset)["a.png"][0][2], wanted)


def test_six_digits_do_not_move_an_outline(tmp_path):
    """COCO's polygons of two decimals, divided and written with six digits, give the masks of the json."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 8))
        ring = (np.stack([40 + 20 * np.cos(angles), 30 + 20 * np.sin(angles)], axis=1)).round(1)
        row = " ".join(f"{value:g}" for value in (ring / (WIDTH, HEIGHT)).ravel())
        rle = coco_mask.frPyObjects([ring.ravel().tolist()], HEIGHT, WIDTH)[0]
        np.testing.assert_array_equal(masks_of(rows_of(tmp_path, f"0 {row}"))["a.png"][0][2], coco_mask.decode(rle) > 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_coordinates_are_of_the_upright_image(tmp_path, orientation):
    save_image(tmp_path / "images/b.png", HEIGHT, WIDTH, orientation)
    write(tmp_path / "labels/b.txt", f"0 {SQUARE}\n")
    mask = masks_of(rows_of(tmp_path, f"0 {SQUARE}"))["b.png"][0][2]
    assert mask.shape == (HEIGHT, WIDTH) and mask[12:42, 10:30].all() and mask.sum() == 600


# ---- Files that cannot be used


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [cat", "not valid yaml"),
        ("train: images", "has no `names`"),
        ("nc: 2\ntrain: images", "no names of categories"),
        ("names: [cat]\ntrain: elsewhere", "no image file found for elsewhere"),
        ("names:\n  - cat: 0\n  - dog: 1\ntrain: images", "`names` must be a list with a name each"),
        ("names: {cat: 0}\ntrain: images", "data.yaml: `names` must be a list, or `0: cat`"),
        ("names: [cat]\nkpt_shape: [17, 3]\ntrain: images", "keypoints"),
    ],
)
def test_what_is_wrong_with_data_yaml_is_said(tmp_path, text, message):
    save_image(tmp_path / "images/a.png")
    write(tmp_path / "data.yaml", text)
    with pytest.raises(DataError, match=message):
        read_yolo(str(tmp_path / "data.yaml"), "", "reject")


def test_a_subset_that_is_not_there(tmp_path):
    save_image(tmp_path / "images/a.png")
    write(tmp_path / "data.yaml", "names: [cat]\ntrain: images\n")
    with pytest.raises(ConfigError, match="--subset=test.*no entry test"):
        read_yolo(str(tmp_path), "test", "reject")
    with pytest.raises(ConfigError, match="no such file"):
        read_yolo(str(tmp_path / "other.yaml"), "", "reject")
    with pytest.raises(DataError, match="no names of categories"):
        read_yolo(str(tmp_path / "images"), "", "reject")
