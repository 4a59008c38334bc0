"""Predictions as files that people correct: of `predict`, which names files, and of `evaluate`, which has ids."""

import json

import numpy as np
import pytest
import yaml

from solo_dist.errors import ConfigError, DataError
from solo_dist.importing.dataset import encode
from solo_dist.importing.labelme import read_labelme
from solo_dist.importing.predictions import read_predictions
from solo_dist.importing.to_labelme import write_labelme
from solo_dist.importing.to_yolo import write_yolo
from tests.importing.conftest import blob, iou, masks_of, reasons, save_image

HEIGHT, WIDTH = 60, 80
MASK = blob(HEIGHT, WIDTH, 1, pieces=2)


def prediction(mask=MASK, score=0.9, **more):
    rle = encode(mask)
    segmentation = {"size": list(mask.shape), "counts": rle["counts"].decode()}
    return {"image_id": 1, "category_id": 7, "score": score, "segmentation": segmentation} | more


@pytest.fixture
def read(tmp_path):
    """Writes files and reads them."""
    save_image(tmp_path / "images/a.jpg", HEIGHT, WIDTH)
    save_image(tmp_path / "images/b.jpg", HEIGHT, WIDTH, orientation=6)
    save_image(tmp_path / "images/c.jpg", HEIGHT, WIDTH, orientation=3)

    def call(predictions, score=0.5, **known):
        known = {"categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]} | known
        (tmp_path / "manifest.json").write_text(json.dumps(known))
        (tmp_path / "results.json").write_text(json.dumps(predictions))
        paths = (str(tmp_path / name) for name in ("results.json", "manifest.json", "images"))
        return read_predictions(*paths, score)

    return call


def test_of_predict_as_labelme(read, tmp_path):
    """Files are named, and masks are on the upright image."""
    names = ["a.jpg", "b.jpg", "c.jpg"]
    dataset = read([prediction(file_name=f"elsewhere/{name}") for name in names])
    assert dataset.categories == ["cat", "dog"]
    write_labelme(dataset, str(tmp_path / "labels"), "")
    content = json.loads((tmp_path / "labels/b.json").read_text())
    assert content["imagePath"] == "../images/b.jpg" and content["imageData"] is None
    assert (content["imageHeight"], content["imageWidth"]) == (HEIGHT, WIDTH)
    assert {shape["description"] for shape in content["shapes"]} == {"score 0.900"}
    back = masks_of(read_labelme(str(tmp_path / "labels"), str(tmp_path / "images"), ""))
    for name in names:
        ((category, _, mask),) = back[name]
        assert category == "cat" and iou(mask, MASK) >= 0.99


def test_of_evaluate(read):
    """Ids only, with the images of the json; masks as COCO has them: of c.jpg on the pixels as stored."""
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate("abc", start=1)]
    upside_down = np.ascontiguousarray(MASK[::-1, ::-1])
    found = masks_of(read([prediction(), prediction(image_id=2), prediction(upside_down, image_id=3)], images=images))
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        np.testing.assert_array_equal(found[name][0][2], MASK)


def test_predictions_that_are_left_out_are_counted(read):
    named = {"file_name": "a.jpg"}
    bad = [
        prediction(score=0.2, **named),
        prediction(category_id=1, **named),
        prediction(),
        prediction(file_name="z.jpg"),
        prediction(MASK[:-1], **named),
        prediction(**named, segmentation=[[1, 2, 3, 4, 5, 6]]),
        "none",
        prediction(score=None, **named),
        prediction(**named, segmentation={"size": [None, 60], "counts": ""}),
    ]
    dataset = read([*bad, prediction(**named)])
    assert dataset.num_instances == 1
    assert reasons(dataset) == {
        "score is below --score": 1,
        "category_id is that of no category": 1,
        "image_id is that of no image in --annotations": 1,
        "image file not found in --images": 1,
        "mask has another size than the image file": 3,
        "score is not a number": 1,
        "prediction is not an object": 1,
    }


def test_a_category_or_an_image_that_is_not_one_costs_itself_only(read):
    categories = [{"id": 7, "name": "cat"}, {"id": 8}, "dog", {"id": None, "name": "cow"}]
    dataset = read([prediction()], categories=categories, images=[{"id": 1, "file_name": "a.jpg"}, {"id": 2}])
    assert dataset.num_instances == 1 and dataset.categories == ["cat"]
    assert reasons(dataset) == {
        "entry has no name": 2,
        "entry has no file_name": 1,
        "id is missing": 1,
    }


def test_nothing_left_is_an_error(read, tmp_path):
    with pytest.raises(DataError, match="no prediction is left of 1; left out: 1 x score is below"):
        read([prediction(file_name="a.jpg")], score=0.95)
    with pytest.raises(DataError, match="no prediction is left of 0; it is empty"):
        read([])
    with pytest.raises(DataError, match="is not a list of predictions"):
        read({})
    with pytest.raises(DataError, match="has no list of categories"):
        read([prediction()], categories=None)
    with pytest.raises(ConfigError, match="--results=.*no such file"):
        read_predictions(str(tmp_path / "none.json"), str(tmp_path / "manifest.json"), str(tmp_path / "images"), 0.5)


def test_files_are_in_subfolders_as_the_images_are(read, tmp_path):
    save_image(tmp_path / "images/day/d.jpg", HEIGHT, WIDTH)
    dataset = read([prediction(file_name="day/d.jpg")])
    write_labelme(dataset, str(tmp_path / "images"), str(tmp_path / "images"))
    assert json.loads((tmp_path / "images/day/d.json").read_text())["imagePath"] == "d.jpg"


WRITERS = {
    "labelme": (write_labelme, "labels/a.json"),
    "yolo": (lambda *args: write_yolo(*args[:3], "train", *args[3:]), "labels/labels/train/a.txt"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_labels_that_are_there_are_kept_unless_they_are_to_be_replaced(read, tmp_path, writer):
    write, name = WRITERS[writer]
    folders = str(tmp_path / "labels"), str(tmp_path / "images")
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("corrected by hand")
    dataset = read([prediction(file_name="a.jpg"), prediction(file_name="b.jpg")])
    write(dataset, *folders)
    assert (tmp_path / name).read_text() == "corrected by hand"
    assert (tmp_path / name.replace("a.", "b.")).exists()
    assert reasons(dataset) == {"label file is there already; --overwrite replaces it": 1}
    assert dataset.report.left_out[0].file == str(tmp_path / name)
    write(read([prediction(file_name="a.jpg")]), *folders, True)
    assert (tmp_path / name).read_text() != "corrected by hand"


@pytest.mark.parametrize("writer", WRITERS)
def test_of_images_that_differ_in_their_suffix_the_second_is_reported(read, tmp_path, writer):
    write, name = WRITERS[writer]
    save_image(tmp_path / "images/a.png", HEIGHT, WIDTH)
    dataset = read([prediction(file_name="a.jpg"), prediction(np.ones_like(MASK), file_name="a.png")])
    write(dataset, str(tmp_path / "labels"), str(tmp_path / "images"), True)
    assert "a.jpg" in (tmp_path / name).read_text() or writer == "yolo"
    ((reason, count),) = reasons(dataset).items()
    assert "same name without suffix" in reason and count == 1
    assert dataset.report.left_out[0].file.endswith("images/a.png")


def test_a_second_subset_is_added_to_data_yaml(read, tmp_path):
    folders = str(tmp_path / "labels"), str(tmp_path / "images")
    write_yolo(read([prediction(file_name="a.jpg")]), *folders, "train")
    path = tmp_path / "labels/data.yaml"
    path.write_text("# made by me\n" + path.read_text() + "license: mine  # do not share\n\n")
    write_yolo(read([prediction(file_name="b.jpg")]), *folders, "val")
    assert yaml.safe_load(path.read_text()) == {
        "path": ".",
        "train": "images/train",
        "val": "images/val",
        "names": {0: "cat", 1: "dog"},
        "license": "mine",
    }
    before = path.read_text()
    assert before.startswith("# made by me\n") and "license: mine  # do not share\nval: images/val\n" in before
    path.write_text(before.replace("dog", "cow"))
    with pytest.raises(ConfigError, match="data.yaml has other names of categories"):
        write_yolo(read([prediction(file_name="c.jpg")]), *folders, "test")
    assert not (tmp_path / "labels/labels/test").exists()
