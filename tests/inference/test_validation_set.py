"""Validation shards that are not quite like the training shards; ids of images that are below zero."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from solo_dist.config import Config, DataConfig, GridConfig
from solo_dist.data import schema
from solo_dist.data.input.pipeline import load_split
from solo_dist.errors import ConfigError
from solo_dist.inference import coco_metrics, coco_results
from solo_dist.inference.validation_set import categories_of_classes
from solo_dist.masks.rle import segmentation_to_rle

TROUBLE = Path(__file__).parents[1] / "data/sharding/trouble"
DISC, BOX = {"id": 1, "name": "disc"}, {"id": 2, "name": "box"}


def manifest(categories, pixel_range=None):
    grid = GridConfig(levels=("p3",), sizes=(8,), scale_ranges=((1, 512),))
    values = {"schema_version": 1, "num_images": 1, "num_instances": 1, "rejected": {}, "canvas": (64, 64)}
    values |= {"grid": grid, "files": [], "augmented_copies": 1, "keep_original": False, "statistics": {}}
    return schema.Manifest(**values, categories=categories, side_files=[], pixel_range=pixel_range, folder="val")


@pytest.mark.parametrize(
    ("trained", "truth", "ids"),
    [
        ([DISC, BOX], [DISC, BOX], [1, 2]),
        ([DISC, BOX], [BOX], [None, 2]),
        ([DISC, BOX], [DISC], [1, None]),
        ([DISC, BOX], [{"id": 1, "name": "box"}], [None, 1]),
        ([DISC, BOX], [{"id": 0, "name": "box"}, {"id": 7, "name": "disc"}], [7, 0]),
        ([DISC, BOX, {"id": 3, "name": "box"}], [BOX], [None, 2, None]),
    ],
)
def test_categories_are_found_by_name(trained, truth, ids):
    found = categories_of_classes(manifest(truth), trained, None, "train")
    assert [category["id"] for category in found] == ids
    assert [category["name"] for category in found] == [category["name"] for category in trained]


@pytest.mark.parametrize("truth", [[DISC, {"id": 2, "name": "Box"}], [{"id": 3, "name": "cone"}]])
def test_a_category_that_the_model_does_not_know_is_named(truth):
    with pytest.raises(
        ConfigError, match=f"categories of val are not those of train, which has no {truth[-1]['name']}"
    ):
        categories_of_classes(manifest(truth), [DISC, BOX], None, "train")


def test_images_of_more_than_8_bits_need_the_range_of_the_training():
    with pytest.raises(ConfigError, match="shard it as train was, with --pixel_range=0:4095"):
        categories_of_classes(manifest([BOX], (7, 9)), [BOX], (0, 4095), "train")
    assert categories_of_classes(manifest([BOX], (0, 4095)), [BOX], (0, 4095), "train")
    assert categories_of_classes(manifest([BOX]), [BOX], (0, 4095), "train")


def test_a_split_without_an_instance_is_refused(monkeypatch):
    empty = dataclasses.replace(manifest([BOX]), num_instances=0)
    monkeypatch.setattr("solo_dist.data.input.pipeline.load_manifest", lambda folder: empty)
    for split in ("train", "validation"):
        with pytest.raises(ConfigError, match=f"data.{split}: shards has no instance"):
            load_split(Config(data=DataConfig(train="shards", validation="shards")), split)


def perfect(entries):
    """Results as if the masks of the json had been detected."""
    results = []
    for entry in entries:
        rle = segmentation_to_rle(entry["segmentation"], 120, 160)
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
        results.append({"image_id": entry["image_id"], "category_id": entry["category_id"], "score": 0.9})
        results[-1]["segmentation"] = segmentation
    return results


def test_images_of_negative_ids_count_like_others():
    truth = json.loads((TROUBLE / "negative_image_ids/train.json").read_text())
    evaluator = coco_metrics.CocoEvaluator(truth)
    evaluator.add(perfect(truth["annotations"]), [-1, 0, 1, schema.NO_IMAGE])
    assert evaluator.image_ids == {-1, 0, 1} and evaluator.metrics()["segm/AP"] == pytest.approx(1)
    evaluator = coco_metrics.CocoEvaluator(truth)
    evaluator.add(perfect(entry for entry in truth["annotations"] if entry["image_id"] >= 0), [-1, 0, 1])
    assert 0.5 < evaluator.metrics()["segm/AP"] < 0.9


def test_a_batch_with_a_negative_id_and_padding():
    batch = {"image_id": np.array([-1, schema.NO_IMAGE]), "image_size": np.full((2, 2), 64)}
    batch["original_size"] = np.full((2, 2), 64)
    detections = {"count": np.array([2, 2]), "scores": np.ones((2, 2), np.float32)}
    detections |= {"categories": np.array([[0, 1], [0, 1]]), "mask_probabilities": np.ones((2, 2, 16, 16), np.float32)}
    results = coco_results.results_of_batch(detections, batch, [{"id": None, "name": "disc"}, BOX], 0.5)
    assert [(result["image_id"], result["category_id"]) for result in results] == [(-1, 2)]


def without(truth, *lacking, keep_categories):
    """The json without the annotations of some categories, with their entries in `categories` or without."""
    entries = [entry for entry in truth["annotations"] if entry["category_id"] not in lacking]
    categories = [c for c in truth["categories"] if keep_categories or c["id"] not in lacking]
    return truth | {"annotations": entries, "categories": categories}


@pytest.mark.parametrize("keep_categories", [True, False])
@pytest.mark.parametrize("lacking", [(1,), (2,), (3,), (1, 3), (2, 3)])
def test_categories_that_validation_lacks_do_not_spoil_the_metrics(lacking, keep_categories):
    """Whether they are named in the json or not, and whatever is detected of them, AP is that of the others."""
    truth = json.loads((TROUBLE / "negative_image_ids/train.json").read_text())
    for number, entry in enumerate(truth["annotations"]):
        entry["category_id"] = 1 + number % 3
    truth["categories"] = [DISC, BOX, {"id": 3, "name": "cone"}]
    part = without(truth, *lacking, keep_categories=keep_categories)
    found = categories_of_classes(manifest(part["categories"]), truth["categories"], None, "train")
    assert [c["id"] is None for c in found] == [c["id"] in lacking and not keep_categories for c in truth["categories"]]
    known = {category["id"] for category in found}
    evaluator = coco_metrics.CocoEvaluator(part)
    evaluator.add([one for one in perfect(truth["annotations"]) if one["category_id"] in known], [-1, 0, 1])
    assert evaluator.metrics()["segm/AP"] == pytest.approx(1)
    by_category = evaluator.by_category()
    assert {number: values["AP"] for number, values in by_category.items()} == {
        category["id"]: -1 if category["id"] in lacking else pytest.approx(1) for category in part["categories"]
    }


def test_a_rare_category_that_validation_lacks_does_not_spoil_the_metrics():
    """AP is the mean over the categories of the validation set, whatever is detected of others."""
    folder = TROUBLE / "validation_without_a_rare_category"
    truth, training = (json.loads((folder / name).read_text()) for name in ("val.json", "train.json"))
    evaluator = coco_metrics.CocoEvaluator(truth)
    found = categories_of_classes(manifest(truth["categories"]), training["categories"], None, "train")
    assert [category["id"] for category in found] == [None, 2]
    evaluator.add(perfect(truth["annotations"]), [1, 2, 3])
    assert evaluator.metrics()["segm/AP"] == pytest.approx(1)
