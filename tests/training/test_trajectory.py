"""Twelve steps of the official solver: warm-up, clipping, weight decay, a milestone, and a part that is frozen."""

import json

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import BackboneConfig, Config, GridConfig, ModelConfig, OptimizerConfig, TrainConfig
from solo_dist.solo.network import build_model
from solo_dist.training.optim import Optimizer
from solo_dist.training.step import TrainStep
from solo_dist.weights.load import assign
from solo_dist.weights.match import match_weights, variables_by_name
from solo_dist.weights.names import translate

CANVAS = (96, 128)
STEPS = 12


@pytest.fixture(scope="module")
def vector(golden):
    return golden("train_r18w8")


def config_of(vector) -> Config:
    official = json.loads(str(vector["config"]))
    model = ModelConfig(
        num_categories=official["ncat"],
        backbone=BackboneConfig(name=f"resnet{official['depth']}", width=official["width"]),
        grid=GridConfig(sizes=tuple(official["grids"]), scale_ranges=tuple(map(tuple, official["ranges"]))),
        fpn_channels=official["C"],
        head_channels=official["feat"],
        head_convs=official["convs"],
        kernel_channels=official["E"],
        mask_channels=official["mf"],
    )
    optimizer = OptimizerConfig(
        learning_rate=official["lr"],
        momentum=official["momentum"],
        weight_decay=official["weight_decay"],
        clip_norm=official["clip_norm"],
        warmup_steps=official["warmup_steps"],
        warmup_factor=official["warmup_ratio"],
        milestones=tuple(official["milestones"]),
        decay_factor=official["decay"],
    )
    return Config(model=model, optimizer=optimizer, train=TrainConfig(steps=STEPS, global_batch=2)).validate()


def images_of(vector) -> dict[str, np.ndarray]:
    """The 24 images with their targets, as the elements of a data set."""
    images = np.clip(vector["base_u8"].astype(np.int32) + vector["noise_i8"], 0, 255).astype(np.uint8)
    counts, positives = vector["num_gt"].ravel(), vector["num_pos"].ravel()
    masks = np.unpackbits(vector["gt_masks"], axis=1).reshape(-1, *CANVAS).astype(np.int32)
    quarter = masks[:, 1::4, 1::4] + masks[:, 1::4, 2::4] + masks[:, 2::4, 1::4] + masks[:, 2::4, 2::4] >= 2
    return {
        "image": images.reshape(-1, *CANVAS, 3),
        "image_size": np.full([2 * STEPS, 2], CANVAS, np.int32),
        "image_id": np.arange(2 * STEPS, dtype=np.int64),
        "category_grid": vector["cate_grid"].reshape(2 * STEPS, -1).astype(np.int32) - 1,
        "positive_cell": padded(vector["cells"], positives, -1),
        "positive_instance": padded(vector["instances"], positives, 0),
        "masks": padded(np.packbits(quarter, axis=2), counts, 0),
        "dropped_positives": np.zeros(2 * STEPS, np.int32),
        "bad_records": np.zeros(2 * STEPS, np.int32),
    }


def padded(values: np.ndarray, counts: np.ndarray, fill: int) -> np.ndarray:
    """Concatenated rows of every image -> an array with as many rows for each as the largest count."""
    result = np.full([len(counts), counts.max(), *values.shape[1:]], fill, values.dtype)
    for image, rows in zip(result, np.split(values, np.cumsum(counts)[:-1]), strict=True):
        image[: len(rows)] = rows
    return result


def check(found, expected, spread, what) -> None:
    """Within 1e-5, or five times as far apart as the official code is from itself."""
    assert abs(found - expected) <= max(1e-5 * abs(expected), 5 * spread), (what, found, expected)


def test_training_follows_the_official_solver(vector):
    config = config_of(vector)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    initial = {name[2:]: value for name, value in vector.items() if name.startswith("w:")}
    with strategy.scope():
        model = build_model(config.model, CANVAS)
        variables = variables_by_name(model)
        match = match_weights(initial, variables, "train_r18w8")
        match.check(strict=True)
        assign(match, variables)
        trained = {variable.path: variable.value for variable in model.trainable_variables}
        optimizer = Optimizer(strategy, trained, config.optimizer, config.optimizer.learning_rate, STEPS)
    step = TrainStep(strategy, model, optimizer, config, micro_batch=2, accumulation=1, compile_scope="none")
    data = tf.data.Dataset.from_tensor_slices(images_of(vector)).batch(2)
    batches = iter(strategy.experimental_distribute_dataset(data))

    for index in range(STEPS):
        step(batches, tf.constant(1), tf.zeros([2]))
        metrics = step.read_metrics()
        assert metrics["lr"] == pytest.approx(vector["lr"][index], rel=1e-6)
        norm = np.sqrt(sum(np.sum(np.square(value.numpy(), dtype=np.float64)) for value in trained.values()))
        named = {"loss_ins": metrics["loss/mask"], "loss_cate": metrics["loss/category"]}
        named |= {"grad_norm": metrics["grad_norm"], "param_norm": norm}
        for name, found in named.items():
            check(found, vector[f"{name}_f64"][index], vector[f"{name}_spread"][index], f"{name} of step {index}")
    check_final_weights(vector, initial, {name: variable.numpy() for name, variable in variables.items()})


def check_final_weights(vector, initial, final) -> None:
    norms, spreads = (json.loads(str(vector[key])) for key in ("final_norms_f64", "final_spread"))
    frozen = json.loads(str(vector["frozen"]))
    expected = {name.partition(":")[2]: value for name, value in vector.items() if name.startswith("final_f64:")}
    at_first = translate(initial).arrays
    whole = translate(initial | expected).arrays
    for name, ours in zip(initial, at_first, strict=True):
        check(np.linalg.norm(final[ours].astype(np.float64)), norms[name], spreads[name], name)
        if name in frozen or "running" in name:
            np.testing.assert_array_equal(final[ours], at_first[ours])
        if name in expected:
            tolerance = max(1e-5 * np.linalg.norm(whole[ours]), 5 * spreads[name])
            assert np.linalg.norm(final[ours] - whole[ours]) <= tolerance, name
