"""The training step: the same gradient however the global batch is cut up, and nothing broken is ever applied."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import Config, GridConfig, ModelConfig, OptimizerConfig
from solo_dist.solo.losses import count_positives, solo_loss
from solo_dist.training.optim import Optimizer
from solo_dist.training.step import TrainStep

IMAGES, SIDE, CHANNELS, CATEGORIES = 8, 32, 4, 3
GRID = GridConfig(levels=("p3", "p4"), sizes=(4, 2), scale_ranges=((1, 16), (12, 64)))
POISON = 255
"""An image of this value makes the network's outputs NaN."""


class TinyNetwork(keras.Model):
    """The outputs of SOLOv2 from three small layers, with BatchNorm out of the way; traces in a second."""

    def __init__(self, gain: float = 1.0):
        super().__init__(name="tiny")
        self.gain = gain
        self.features = keras.layers.Conv2D(CHANNELS, 4, strides=4, activation="tanh", name="features")
        self.cells = keras.layers.Dense(GRID.num_cells * (CATEGORIES + CHANNELS), name="cells")

    def call(self, images, training=False):
        pixels = tf.cast(images, self.compute_dtype) / 255
        poisoned = tf.reduce_min(tf.cast(images, tf.float32), axis=[1, 2, 3], keepdims=True) == POISON
        pixels = tf.where(poisoned, tf.constant(np.nan, self.compute_dtype), pixels)
        features = self.features(pixels) * tf.cast(self.gain, self.compute_dtype)
        cells = tf.reshape(
            self.cells(tf.reduce_mean(features, axis=[1, 2])), [-1, GRID.num_cells, CATEGORIES + CHANNELS]
        )
        return {
            "category_logits": tf.cast(cells[:, :, :CATEGORIES], tf.float32),
            "kernels": tf.cast(cells[:, :, CATEGORIES:], tf.float32),
            "mask_features": features,
        }


def make_batch(poisoned=()):
    """Images with 0 to 6 positives; the two of one micro-batch of four have none."""
    rng = np.random.default_rng(0)
    positives = [6, 1, 0, 0, 3, 5, 2, 4]
    cells = np.full([IMAGES, 8], -1, np.int32)
    grid = np.full([IMAGES, GRID.num_cells], -1, np.int32)
    for image, count in enumerate(positives):
        cells[image, :count] = rng.choice(GRID.num_cells, count, replace=False)
        grid[image, cells[image, :count]] = rng.integers(0, CATEGORIES, count)
    images = rng.integers(0, 250, [IMAGES, SIDE, SIDE, 3]).astype(np.uint8)
    images[list(poisoned)] = POISON
    return {
        "image": images,
        "image_size": np.full([IMAGES, 2], SIDE, np.int32),
        "category_grid": grid,
        "positive_cell": cells,
        "positive_instance": rng.integers(0, 2, [IMAGES, 8]).astype(np.int32),
        "masks": rng.integers(0, 256, [IMAGES, 2, 8, 1]).astype(np.uint8),
        "image_id": np.arange(100, 100 + IMAGES, dtype=np.int64),
        "dropped_positives": np.array([0, 2, 0, 0, 1, 0, 0, 0], np.int32),
        "bad_records": np.zeros(IMAGES, np.int32),
    }


class Run:
    """A TrainStep over fixed batches under one strategy."""

    def __init__(self, strategy, accumulation=1, batches=None, precision="float32", gain=1.0, compile_scope="none"):
        replicas = strategy.num_replicas_in_sync
        config = Config(model=ModelConfig(num_categories=CATEGORIES, kernel_channels=CHANNELS, grid=GRID))
        config.optimizer = OptimizerConfig(schedule="constant", warmup_steps=0, weight_decay=0.0)
        config.runtime.precision = precision
        keras.utils.set_random_seed(3)
        keras.config.set_dtype_policy({"float16": "mixed_float16"}.get(precision, precision))
        try:
            with strategy.scope():
                self.model = TinyNetwork(gain)
                self.model(np.zeros([1, SIDE, SIDE, 3], np.uint8))
        finally:
            keras.config.set_dtype_policy("float32")
        variables = {variable.path: variable.value for variable in self.model.trainable_variables}
        self.optimizer = Optimizer(strategy, variables, config.optimizer, 0.1, 100)
        micro_batch = IMAGES // replicas // accumulation
        self.step = TrainStep(strategy, self.model, self.optimizer, config, micro_batch, accumulation, compile_scope)
        batches = batches or [make_batch()]
        stacked = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        data = tf.data.Dataset.from_tensor_slices(stacked).repeat().batch(IMAGES // replicas, drop_remainder=True)
        self.batches = iter(strategy.distribute_datasets_from_function(lambda _: data))
        self.strategy, self.config = strategy, config

    def __call__(self, count=1, requests=(0.0, 0.0)):
        return self.step(self.batches, tf.constant(count), tf.constant(requests))

    def weights(self):
        local = self.strategy.experimental_local_results
        return [[copy.numpy() for copy in local(variable.value)] for variable in self.model.trainable_variables]


@pytest.fixture(scope="module")
def one_device():
    return tf.distribute.OneDeviceStrategy("CPU:0")


@pytest.fixture(scope="module")
def whole_batch(one_device):
    """Three steps of the whole batch at once on one device: metrics and weights."""
    run = Run(one_device)
    metrics = []
    for _ in range(3):
        run()
        metrics.append(run.step.read_metrics())
    return metrics, run.weights()


@pytest.mark.parametrize("accumulation", [2, 4, 8])
def test_accumulated_micro_batches_are_the_whole_batch(one_device, whole_batch, accumulation):
    check_equal(Run(one_device, accumulation), whole_batch)


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_mirrored_replicas_are_the_whole_batch(mirrored, whole_batch, accumulation):
    check_equal(Run(mirrored, accumulation), whole_batch)


@pytest.mark.parametrize("compile_scope", ["loss", "step"])
def test_compiled_is_the_whole_batch(one_device, whole_batch, compile_scope):
    check_equal(Run(one_device, 2, compile_scope=compile_scope), whole_batch)


def check_equal(run, expected):
    metrics, weights = expected
    for line in metrics:
        run()
        found = run.step.read_metrics()
        for name in ("loss/total", "loss/category", "loss/mask", "grad_norm", "lr"):
            assert found[name] == pytest.approx(line[name], rel=1e-5), name
        assert found["targets/dropped_positives"] == 3
    for copies, (whole,) in zip(run.weights(), weights, strict=True):
        for copy in copies:
            np.testing.assert_allclose(copy, whole, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(copy, copies[0])


def test_the_loss_is_divided_by_the_positives_of_the_global_batch(one_device, whole_batch):
    """Image by image with an independent count: a normaliser per image or micro-batch gives another number."""
    run, batch = Run(one_device), make_batch()
    outputs = run.model(batch["image"])
    unit = {"positives": tf.constant(1.0), "positive_cells": tf.constant(0.0)}
    mask = category = 0.0
    for i in range(IMAGES):
        image = {key: tf.constant(value[i : i + 1]) for key, value in batch.items()}
        part = {key: value[i : i + 1] for key, value in outputs.items()}
        losses = solo_loss(part, image, unit, run.config.loss, run.config.model)
        mask, category = mask + float(losses["mask"]), category + float(losses["category"])
    positives = int((batch["positive_cell"] >= 0).sum())
    assert int(count_positives(batch)["positives"]) == positives == 21
    first = whole_batch[0][0]
    assert first["loss/mask"] == pytest.approx(mask / positives, rel=1e-5)
    assert first["loss/category"] == pytest.approx(category / (positives + 1), rel=1e-5)


def test_several_steps_a_call_are_several_calls(one_device, whole_batch):
    run = Run(one_device)
    run(count=3)
    metrics, weights = whole_batch
    found = run.step.read_metrics()
    for name in ("loss/total", "loss/category", "loss/mask", "grad_norm"):
        assert found[name] == pytest.approx(np.mean([m[name] for m in metrics]), rel=1e-5), name
    assert found["targets/dropped_positives"] == sum(m["targets/dropped_positives"] for m in metrics) == 9
    for (copy,), (whole,) in zip(run.weights(), weights, strict=True):
        np.testing.assert_allclose(copy, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_broken_step_is_counted_named_and_not_applied(mirrored, accumulation):
    run = Run(mirrored, accumulation, [make_batch(), make_batch(poisoned=[5]), make_batch(poisoned=[5]), make_batch()])
    assert int(run().nonfinite_run) == 0
    before = run.weights()
    assert int(run().nonfinite_run) == 1
    assert int(run().nonfinite_run) == 2
    assert 105 in run.step.suspect_images()
    for copies, old in zip(run.weights(), before, strict=True):
        np.testing.assert_array_equal(copies, old)
    metrics = run.step.read_metrics()
    assert metrics["nonfinite_steps"] == 2
    assert np.isfinite(metrics["loss/total"])
    assert int(run().nonfinite_run) == 0
    assert not np.array_equal(run.weights()[0][0], before[0][0])


def test_float16_overflow_halves_the_scale_skips_the_step_and_goes_on(one_device):
    # Activations of this size give gradients that overflow float16 at the initial scale but not much below it.
    run = Run(one_device, precision="float16", gain=30.0)
    before, scales, skipped = run.weights(), [], 0
    for _ in range(12):
        run()
        metrics = run.step.read_metrics()
        scales.append(metrics["loss_scale"])
        skipped += metrics["nonfinite_steps"]
    assert skipped >= 1
    assert scales[0] == 2.0**14
    assert scales[-1] == 2.0**15 / 2**skipped
    assert not np.array_equal(run.weights()[0][0], before[0][0])
    assert all(np.isfinite(copy).all() for copies in run.weights() for copy in copies)


def test_wishes_of_a_worker_reach_all(one_device):
    run = Run(one_device)
    assert (run(requests=(0.0, 0.0)).requests.numpy() > 0).tolist() == [False, False]
    assert (run(requests=(1.0, 0.0)).requests.numpy() > 0).tolist() == [True, False]
    assert (run(requests=(0.0, 1.0)).requests.numpy() > 0).tolist() == [False, True]


def test_state_comes_back(one_device):
    """What a checkpoint holds is enough: the next step is the same from it."""
    run, other = Run(one_device), Run(one_device)
    run()
    for source, target in ((run.optimizer, other.optimizer), (run.step, other.step)):
        for name, variable in source.state().items():
            target.state()[name].assign(variable.read_value())
    for source, target in zip(run.model.variables, other.model.variables, strict=True):
        target.assign(source)
    run(), other()
    assert run.step.read_metrics() == other.step.read_metrics()
    for mine, theirs in zip(run.weights(), other.weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
