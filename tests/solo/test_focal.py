"""The loss of the category scores against the official one, plain loops, and its edges."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.solo import focal
from tests.golden.compare import relative


def test_focal_is_the_official_one(golden):
    vector = golden("loss_focal")
    logits = tf.constant(vector["logits"])
    grid = tf.constant(vector["labels"].astype(np.int32) - 1)  # quirk 12
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = focal.focal_loss_sum(logits, grid, 0.25, 2.0) / float(vector["avg_factor"])
    assert relative(loss, vector["loss"]) <= 1e-5
    assert relative(focal.focal_loss(logits, grid, 0.25, 2.0), vector["elementwise_f64"]) <= 1e-6
    assert relative(tape.gradient(loss, logits), vector["grad_logits"]) <= 1e-4


@pytest.fixture
def extreme():
    """Logits and categories."""
    return tf.constant([[-1e4, 1e4], [1e4, -1e4], [0.0, 200.0]]), tf.constant([0, -1, 1])


def test_focal_is_finite_for_extreme_logits(extreme):
    logits, cells = extreme
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = focal.focal_loss_sum(logits, cells, 0.25, 2.0)
    assert np.isfinite(loss) and np.isfinite(tape.gradient(loss, logits)).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_quality_focal_is_finite_for_extreme_logits(extreme, gamma):
    logits, cells = extreme
    for quality in (0.0, 0.3, 1.0):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = focal.quality_focal_loss_sum(logits, cells, tf.fill([3], quality), 0.25, gamma)
        assert np.isfinite(loss) and np.isfinite(tape.gradient(loss, logits)).all()


def random_scores(seed=0):
    rng = np.random.default_rng(seed)
    grid = rng.integers(-1, 3, [2, 20])
    return rng.normal(scale=2, size=[2, 20, 3]), grid, np.where(grid >= 0, rng.random([2, 20]), 0.0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_quality_focal_equals_one_score_at_a_time(gamma):
    logits, grid, quality = random_scores()
    expected = 0.0
    for place in np.ndindex(logits.shape):
        probability = 1 / (1 + np.exp(-logits[place]))
        is_target = grid[place[:2]] == place[2]
        target = quality[place[:2]] if is_target else 0.0
        entropy = -target * np.log(probability) - (1 - target) * np.log(1 - probability)
        expected += (0.3 if is_target else 0.7) * abs(target - probability) ** gamma * entropy
    arguments = tf.constant(logits, tf.float32), tf.constant(grid, tf.int32), tf.constant(quality, tf.float32)
    assert relative(focal.quality_focal_loss_sum(*arguments, 0.3, gamma), expected) <= 1e-5


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_masks_without_fault_make_it_the_focal_loss(gamma):
    logits, grid, _ = random_scores()
    logits, grid = tf.constant(logits, tf.float32), tf.constant(grid, tf.int32)
    found = focal.quality_focal_loss_sum(logits, grid, tf.ones(grid.shape), 0.25, gamma)
    assert relative(found, focal.focal_loss_sum(logits, grid, 0.25, gamma)) <= 1e-5


def test_the_best_mask_of_a_shared_cell_counts():
    cells = tf.constant([[3, 0, 3, -1], [-1, -1, 1, 1]])
    quality = tf.constant([[0.2, 0.5, 0.7, 0.9], [0.8, 0.0, 0.4, 0.1]])
    found = focal.cell_quality(quality, cells, 4)
    np.testing.assert_allclose(found, [[0.5, 0, 0, 0.7], [0, 0.4, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("with_quality", [False, True])
def test_federated_losses_equal_one_score_at_a_time(gamma, with_quality):
    """A category that is unknown in an image counts at its own cells only."""
    logits, grid, quality = random_scores(seed=1)
    unknown = np.array([[True, False, True], [False, False, True]])
    expected, gradient = 0.0, np.zeros(logits.shape)
    for b, n, c in np.ndindex(logits.shape):
        is_target = grid[b, n] == c
        if not is_target and unknown[b, c]:
            continue
        target = (quality[b, n] if with_quality else 1.0) if is_target else 0.0
        weight = 0.25 if is_target else 0.75

        def loss(logit, target=target, weight=weight):
            p = 1 / (1 + np.exp(-logit))
            return -weight * abs(target - p) ** gamma * (target * np.log(p) + (1 - target) * np.log(1 - p))

        expected += loss(logits[b, n, c])
        gradient[b, n, c] = (loss(logits[b, n, c] + 1e-5) - loss(logits[b, n, c] - 1e-5)) / 2e-5
    scores, cells = tf.constant(logits, tf.float32), tf.constant(grid)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        known = {"alpha": 0.25, "gamma": gamma, "unknown": tf.constant(unknown)[:, None]}
        if with_quality:
            made = focal.quality_focal_loss_sum(scores, cells, tf.constant(quality, tf.float32), **known)
        else:
            made = focal.focal_loss_sum(scores, cells, **known)
    assert relative(made, expected) <= 1e-5
    assert relative(tape.gradient(made, scores), gradient) <= 1e-4
