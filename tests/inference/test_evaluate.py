"""Evaluation from shards: perfect detections through the whole path, and the program itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import Config, DataConfig, GridConfig, PostprocessConfig
from solo_dist.data.input.pipeline import build_dataset, load_split
from solo_dist.data.sharding import job, records, shapes
from solo_dist.inference import coco_metrics
from solo_dist.inference.ceiling import ceiling_at_quarter_resolution
from solo_dist.masks.bits import unpack_bits
from solo_dist.run import checkpoint
from solo_dist.solo.network import build_model
from tests.distributed import tiny

ROOT = Path(__file__).resolve().parents[2]
GRID = GridConfig(levels=("p3", "p4"), sizes=(12, 8), scale_ranges=((1, 48), (32, 2048)))


def config_for(shards: str) -> Config:
    return Config(
        name="tiny",
        data=DataConfig(validation=shards, canvas=(64, 64), max_instances=8, max_positives=64),
        model=tiny.model(num_categories=3, grid=GRID),
        postprocess=PostprocessConfig(score_threshold=0.001, update_threshold=0.001, max_detections=6),
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Seven images of shapes at twice the canvas, sharded for it."""
    folder = str(tmp_path_factory.mktemp("shapes"))
    shapes.make_shapes(folder, "validation", 7, shapes.ShapesSettings(side=128))
    settings = records.ShardSettings((64, 64), GRID)
    job.shard_coco(
        job.ShardJob(f"{folder}/instances.json", f"{folder}/images", f"{folder}/shards", settings), processes=1
    )
    return config_for(f"{folder}/shards")


def with_categories(annotations):
    """The class of each trained instance by image id, in annotation order."""
    class_of = {category["id"]: i for i, category in enumerate(annotations["categories"])}
    found = {}
    for entry in annotations["annotations"]:
        if not entry["iscrowd"]:
            found.setdefault(entry["image_id"], []).append(class_of[entry["category_id"]])
    return found


def test_perfect_detections_reach_the_ceiling(config):
    manifest = load_split(config, "validation")
    evaluator = coco_metrics.CocoEvaluator(manifest.annotations)
    classes = with_categories(evaluator.annotations)
    batches = list(build_dataset(config, "validation", batch_size=3))
    assert sum(len(batch["image_id"]) for batch in batches) == 9  # the last batch is padded
    queue = iter(batches)

    def perfect(images):
        batch = next(queue)
        count = [len(classes.get(int(number), [])) for number in batch["image_id"]]
        categories = [classes.get(int(number), []) + [0] * 8 for number in batch["image_id"]]
        return {
            "count": np.array(count),
            "scores": np.ones([len(count), 8], np.float32),
            "categories": np.array([row[:8] for row in categories]),
            "mask_probabilities": unpack_bits(batch["masks"]).numpy().astype(np.float32),
        }

    coco_metrics.evaluate(perfect, batches, evaluator, manifest.categories, 0.5)
    assert len(evaluator.image_ids) == 7
    metrics = evaluator.metrics()
    ceiling = ceiling_at_quarter_resolution(manifest.annotations, config.data.canvas)
    assert metrics == pytest.approx(ceiling)
    assert 0.3 < metrics["segm/AP"] < 0.99 and metrics["segm/AP50"] > 0.9


def test_a_limited_evaluation_counts_only_what_it_has_seen(config):
    manifest = load_split(config, "validation")
    evaluator = coco_metrics.CocoEvaluator(manifest.annotations)

    def nothing(images):
        count = len(images)
        return {
            "count": np.zeros(count, int),
            "scores": np.zeros([count, 1]),
            "categories": np.zeros([count, 1], int),
            "mask_probabilities": np.zeros([count, 1, 16, 16], np.float32),
        }

    batches = build_dataset(config, "validation", batch_size=2)
    coco_metrics.evaluate(nothing, batches, evaluator, manifest.categories, 0.5, images=3)
    assert len(evaluator.image_ids) == 4


def test_program_prints_the_table_and_writes_what_it_computed(config, tmp_path):
    tf.keras.utils.set_random_seed(0)
    model = build_model(config.model, config.data.canvas)
    arrays = {f"model/{variable.path}": variable.numpy() for variable in model.variables}
    manifest = load_split(config, "validation")
    (tmp_path / "config.json").write_text(config.to_json())
    metadata = checkpoint.CheckpointMetadata(step=12, categories=manifest.categories)
    checkpoint.save_checkpoint(f"{tmp_path}/checkpoints/step_00000012", arrays, metadata)
    done = subprocess.run(
        [sys.executable, "-m", "solo_dist.evaluate", f"--workdir={tmp_path}", "--batch=3"],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "eval" / "step_12" / "metrics.json").read_text())
    results = json.loads((tmp_path / "eval" / "step_12" / "coco_instances_results.json").read_text())
    evaluator = coco_metrics.CocoEvaluator(manifest.annotations)
    evaluator.add(results, [image["id"] for image in evaluator.annotations["images"]])
    ceiling = ceiling_at_quarter_resolution(manifest.annotations, config.data.canvas)
    at_most = {tag.replace("segm/", "ceiling/"): value for tag, value in ceiling.items()}
    assert evaluator.metrics() | at_most == pytest.approx(metrics)
    visited = json.loads((tmp_path / "eval" / "step_12" / "image_ids.json").read_text())
    assert visited == sorted(image["id"] for image in evaluator.annotations["images"])
    assert coco_metrics.format_table(metrics, ceiling) in done.stdout
    assert "on 7 images" in done.stdout
