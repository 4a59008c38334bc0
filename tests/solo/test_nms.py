"""Points-NMS and Matrix NMS against the official implementation, and their fast parts against plain versions."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import GridConfig
from solo_dist.solo import nms
from tests.golden.compare import flatten_levels, unpack

GRID = GridConfig()


def test_points_nms_is_the_official_one(golden):
    vector = golden("resize_pointsnms")
    heat, expected = (vector[name].transpose(0, 2, 3, 1) for name in ("heat", "heat_points_nms"))
    grid = GridConfig(levels=("p2",), sizes=(9,), scale_ranges=((1, 2048),))
    found = nms.points_nms(tf.constant(heat.reshape(2, 81, 3)), grid)
    assert np.abs(found.numpy().reshape(2, 9, 9, 3) - expected).max() <= 1e-6


def test_points_nms_of_the_official_head(golden):
    head = golden("head_small")
    scores = nms.points_nms(tf.sigmoid(tf.constant(flatten_levels(head, "cate_pred"))), GRID).numpy()
    expected = np.concatenate([head[f"cate_eval_{i}"].reshape(2, -1, scores.shape[2]) for i in range(5)], axis=1)
    assert np.abs(scores - expected).max() <= 1e-6


@pytest.mark.parametrize("name", ["nms_1", "nms_50"])
@pytest.mark.parametrize("kernel, sigma", [("gaussian", 2.0), ("gaussian", 0.5), ("linear", 2.0)])
def test_matrix_nms_is_the_official_one(golden, name, kernel, sigma):
    vector = golden(name)
    masks = unpack(vector["masks"], vector["mask_shape"][1:])
    packed = tf.constant(np.packbits(masks.reshape(len(masks), -1), axis=1))
    labels, scores = tf.constant(vector["labels"], tf.int32), tf.constant(vector["scores"])
    found = nms.matrix_nms(nms.mask_ious(packed), labels, scores, kernel, sigma).numpy()
    expected = vector["out_linear" if kernel == "linear" else "out_gaussian" + ("_sigma05" if sigma == 0.5 else "")]
    assert np.isfinite(found).all()
    assert np.abs(found - expected)[np.isfinite(expected)].max() <= 1e-5


def test_linear_matrix_nms_of_identical_masks_is_finite():
    masks = np.zeros([4, 4, 16], np.uint8)
    masks[:3, :2] = 1  # three times the same
    masks[3, 1:3] = 1  # a third of their union in common
    packed = tf.constant(np.packbits(masks.reshape(4, -1), axis=1))
    ious = nms.mask_ious(packed)
    found = nms.matrix_nms(ious, tf.zeros([4], tf.int32), tf.constant([0.9, 0.8, 0.7, 0.6]), "linear", 2.0)
    np.testing.assert_allclose(found, [0.9, 0, 0, 0.6 * 2 / 3], atol=1e-6)


def slow_keep_one_category(masks, categories, scores):
    """Greedy: masks one by one, best first, dropped if a kept one of another category overlaps them by IoU > 0.5."""
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] <= 0:
            continue
        same = [
            j
            for j in kept
            if categories[j] != categories[i] and (masks[i] & masks[j]).sum() > 0.5 * (masks[i] | masks[j]).sum()
        ]
        if not same:
            kept.append(i)
    return np.where(np.isin(np.arange(len(scores)), kept), scores, 0)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_one_category_is_that_of_the_greedy_choice(seed, jit):
    """Boxes on one line that are shifted little by little, so that long chains of overlaps arise."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, 60, 80)
    masks = (np.arange(128) >= starts[:, None]) & (np.arange(128) < starts[:, None] + rng.integers(20, 40, [80, 1]))
    categories, scores = rng.integers(0, 3, 80).astype(np.int32), np.round(rng.random(80), 1).astype(np.float32)
    scores[rng.random(80) < 0.2] = 0
    expected = slow_keep_one_category(masks, categories, scores)
    assert 0 < np.count_nonzero(expected) < np.count_nonzero(scores)
    packed = tf.constant(np.packbits(masks, axis=1))
    keep = tf.function(
        lambda masks, *of: nms.keep_one_category(nms.mask_ious(masks), *of), jit_compile=jit, autograph=False
    )
    np.testing.assert_array_equal(keep(packed, tf.constant(categories), tf.constant(scores)), expected)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("count, pixels", [(1, 8), (13, 4000), (300, 16 * 64 * 3 + 8)])
def test_ious_are_exact(count, pixels, compiled):
    masks = np.random.default_rng(0).integers(0, 2, [count, pixels]).astype(np.uint8)
    masks[: count // 2] |= 1  # full masks: the largest sums
    masks[-1] = 0
    found = nms.mask_ious(tf.constant(np.packbits(masks, axis=1)), compiled).numpy()
    wide = masks.astype(np.int64)
    common = wide @ wide.T
    union = wide.sum(1)[:, None] + wide.sum(1)[None, :] - common
    assert np.array_equal(found, common.astype(np.float32) / np.maximum(union, 1).astype(np.float32))
