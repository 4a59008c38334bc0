"""Optimizers against slow versions written from their papers, and the schedule against its definition."""

import math

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import OptimizerConfig
from solo_dist.training.optim import Optimizer, learning_rate_at, peak_learning_rate

STRATEGY = tf.distribute.get_strategy()


def run(config, gradients, peak=0.1, scales=None):
    """Applies a list of gradients to a matrix and a vector; returns both and the optimizer."""
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(3, 2)).astype(np.float32), "bias": rng.normal(size=2).astype(np.float32)}
    variables = {name: tf.Variable(value) for name, value in start.items()}
    optimizer = Optimizer(STRATEGY, variables, config, peak, len(gradients), scales)
    for gradient in gradients:
        tensors = [tf.constant(gradient[name]) for name in variables]
        optimizer.apply(tensors, tf.linalg.global_norm(tensors))
    return start, {name: variable.numpy() for name, variable in variables.items()}, optimizer


def random_gradients(steps):
    rng = np.random.default_rng(1)
    return [
        {"kernel": rng.normal(size=(3, 2)).astype("f4"), "bias": rng.normal(size=2).astype("f4")} for _ in range(steps)
    ]


def test_sgd_applies_the_rate_outside_the_momentum():
    """As torch.optim.SGD: it matters when the rate changes (quirk 18 of docs/numerics.md)."""
    config = OptimizerConfig(momentum=0.9, weight_decay=0.01, schedule="step", milestones=(2,), warmup_steps=0)
    gradients = random_gradients(4)
    start, result, _ = run(config, gradients)
    for name, weight in start.items():
        momentum = 0.0
        for step, gradient in enumerate(gradients):
            momentum = 0.9 * momentum + gradient[name] + 0.01 * weight
            weight = weight - (0.1 if step < 2 else 0.01) * momentum
        np.testing.assert_allclose(result[name], weight, rtol=1e-5)


def test_adamw_with_norms_and_biases_spared():
    config = OptimizerConfig(
        name="adamw", weight_decay=0.05, decay_norms_and_biases=False, schedule="constant", warmup_steps=0
    )
    gradients = random_gradients(5)
    start, result, _ = run(config, gradients)
    for name, weight in start.items():
        first = second = 0.0
        for step, gradient in enumerate(gradients, start=1):
            weight = weight * (1 - 0.1 * (0.05 if name == "kernel" else 0.0))
            first = 0.9 * first + 0.1 * gradient[name]
            second = 0.999 * second + 0.001 * gradient[name] ** 2
            corrected = first / (1 - 0.9**step), second / (1 - 0.999**step)
            weight = weight - 0.1 * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        np.testing.assert_allclose(result[name], weight, rtol=1e-4)


def test_clipping_acts_on_the_norm_of_all_gradients_together():
    config = OptimizerConfig(momentum=0.0, weight_decay=0.0, clip_norm=1.0, schedule="constant", warmup_steps=0)
    (gradient,) = random_gradients(1)
    norm = math.sqrt(sum((value**2).sum() for value in gradient.values()))
    assert norm > 1
    start, result, _ = run(config, [gradient])
    for name in start:
        np.testing.assert_allclose(result[name], start[name] - 0.1 * gradient[name] / norm, rtol=1e-5)


def test_rate_scale_of_single_variables():
    config = OptimizerConfig(momentum=0.0, weight_decay=0.0, schedule="constant", warmup_steps=0)
    (gradient,) = random_gradients(1)
    start, result, _ = run(config, [gradient], scales={"kernel": 0.2})
    np.testing.assert_allclose(result["kernel"], start["kernel"] - 0.02 * gradient["kernel"], rtol=1e-5)
    np.testing.assert_allclose(result["bias"], start["bias"] - 0.1 * gradient["bias"], rtol=1e-5)


def test_moving_average_follows_and_takes_the_place_of_the_weights_for_a_while():
    config = OptimizerConfig(momentum=0.0, weight_decay=0.0, ema_decay=0.5, schedule="constant", warmup_steps=0)
    gradients = random_gradients(3)
    start, result, optimizer = run(config, gradients)
    weight = average = start["kernel"]
    for step, gradient in enumerate(gradients, start=1):
        weight = weight - 0.1 * gradient["kernel"]
        keep = min(0.5, step / (step + 10))
        average = keep * average + (1 - keep) * weight
    variable = optimizer._variables["kernel"]
    with optimizer.averaged_weights():
        np.testing.assert_allclose(variable.numpy(), average, rtol=1e-5)
    np.testing.assert_allclose(variable.numpy(), weight, rtol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 0, 0.1 * 0.01),
        ("constant", 5, 0.1 * (0.01 + 0.99 * 0.5)),
        ("constant", 10, 0.1),
        ("step", 59, 0.1),
        ("step", 60, 0.01),
        ("step", 80, 0.001),
        ("cosine", 10, 0.1),
        ("cosine", 55, 0.05),
        ("cosine", 100, 0.0),
    ],
)
def test_schedule(schedule, step, expected):
    config = OptimizerConfig(schedule=schedule, warmup_steps=10, warmup_factor=0.01, milestones=(60, 80))
    rate = learning_rate_at(tf.constant(step, tf.int64), config, 0.1, 100)
    assert float(rate) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_rate_is_scaled_by_the_global_batch_only_where_asked():
    assert peak_learning_rate(OptimizerConfig(learning_rate=0.01), 4) == 0.01
    assert peak_learning_rate(OptimizerConfig(learning_rate=0.01, reference_batch=16), 4) == 0.0025
