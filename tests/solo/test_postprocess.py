"""Post-processing against the official implementation, and its fast parts against plain versions."""

import json

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import GridConfig, PostprocessConfig
from solo_dist.solo import postprocess

GRID = GridConfig()


def unpack(packed, shape):
    """The golden vectors' masks: [n, bytes] -> bool [n, *shape]."""
    return np.unpackbits(packed, axis=1)[:, : shape[0] * shape[1]].reshape(-1, *shape).astype(bool)


def flatten_levels(arrays, name):
    """Official per-level NCHW arrays -> [B,N,C], levels in order, cells row-major."""
    parts = [arrays[f"{name}_{level}"] for level in range(5)]
    return np.concatenate([p.transpose(0, 2, 3, 1).reshape(p.shape[0], -1, p.shape[1]) for p in parts], axis=1)


def logit(probability):
    probability = probability.astype(np.float64)
    return np.log(probability / (1 - probability))


def test_points_nms_is_the_official_one(golden):
    vector = golden("resize_pointsnms")
    heat, expected = (vector[name].transpose(0, 2, 3, 1) for name in ("heat", "heat_points_nms"))
    grid = GridConfig(levels=("p2",), sizes=(9,), scale_ranges=((1, 2048),))
    found = postprocess.points_nms(tf.constant(heat.reshape(2, 81, 3)), grid)
    assert np.abs(found.numpy().reshape(2, 9, 9, 3) - expected).max() <= 1e-6


def test_points_nms_of_the_official_head(golden):
    head = golden("head_small")
    scores = postprocess.points_nms(tf.sigmoid(tf.constant(flatten_levels(head, "cate_pred"))), GRID).numpy()
    expected = np.concatenate([head[f"cate_eval_{i}"].reshape(2, -1, scores.shape[2]) for i in range(5)], axis=1)
    assert np.abs(scores - expected).max() <= 1e-6


def infer_outputs(golden, name):
    arrays = golden("head_small" if "headsmall" in name else name)
    scores_given = "cate_score_0" in arrays
    logits = logit(flatten_levels(arrays, "cate_score")) if scores_given else flatten_levels(arrays, "cate_pred")
    return {
        "category_logits": tf.constant(logits, tf.float32),
        "kernels": tf.constant(flatten_levels(arrays, "kernel_pred")),
        "mask_features": tf.constant(arrays["mask_feat"].transpose(0, 2, 3, 1)),
    }


def config_of(vector):
    official = json.loads(str(vector["cfg"]))
    return PostprocessConfig(
        score_threshold=official["score_thr"],
        mask_threshold=official["mask_thr"],
        max_candidates=official["nms_pre"],
        nms_kernel=official["kernel"],
        nms_sigma=official["sigma"],
        update_threshold=official["update_thr"],
        max_detections=official["max_per_img"],
    )


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", ["infer_headsmall_default", "infer_planted_default"])
def test_whole_postprocessing_is_the_official_one(golden, name, jit):
    vector = golden(name)
    config = config_of(vector)
    detect = tf.function(lambda outputs: postprocess.detect(outputs, GRID, config), jit_compile=jit)
    found = {key: value.numpy() for key, value in detect(infer_outputs(golden, name)).items()}
    image_size, original = tuple(vector["img_shape"]), tuple(vector["ori_shape"])
    for i in range(2):
        count = int(vector[f"n_{i}"])
        assert found["count"][i] == count
        scores, labels = vector[f"scores_{i}"], vector[f"labels_{i}"]
        masks = unpack(vector[f"masks_{i}"], original)
        assert np.abs(found["scores"][i, :count] - scores).max() <= 1e-4
        pasted = postprocess.paste_masks(found["mask_probabilities"][i, :count], image_size, original, 0.5)
        same_as = match(found["scores"][i], found["categories"][i], pasted, scores, labels, masks)
        near = slow_soft_masks(found["mask_probabilities"][i, :count], image_size, original)
        differs = pasted != masks[same_as]
        assert np.abs(near[differs] - 0.5).max(initial=0) <= 1e-3


def match(scores, categories, masks, official_scores, official_labels, official_masks):
    """For each detection the official one with the same category, nearly the same score and the most alike mask."""
    left, pairs = set(range(len(official_scores))), []
    for i in range(len(official_scores)):
        options = [
            j for j in left if official_labels[j] == categories[i] and abs(official_scores[j] - scores[i]) <= 1e-4
        ]
        assert options, f"detection {i} is not an official one"
        best = min(options, key=lambda j: np.count_nonzero(official_masks[j] != masks[i]))
        left.remove(best)
        pairs.append(best)
    return pairs


def slow_soft_masks(probabilities, image_size, original_size):
    """The official two resizes, one after the other, by another implementation of bilinear interpolation."""
    maps = tf.constant(probabilities.transpose(1, 2, 0)[None])
    height, width = maps.shape[1:3]
    large = tf.image.resize(maps, [4 * height, 4 * width])[:, : image_size[0], : image_size[1]]
    return tf.image.resize(large, original_size).numpy()[0].transpose(2, 0, 1)


@pytest.mark.parametrize("name", ["nms_1", "nms_50"])
@pytest.mark.parametrize("kernel, sigma", [("gaussian", 2.0), ("gaussian", 0.5), ("linear", 2.0)])
def test_matrix_nms_is_the_official_one(golden, name, kernel, sigma):
    vector = golden(name)
    masks = unpack(vector["masks"], vector["mask_shape"][1:])
    packed = tf.constant(np.packbits(masks.reshape(len(masks), -1), axis=1))
    labels, scores = tf.constant(vector["labels"], tf.int32), tf.constant(vector["scores"])
    found = postprocess.matrix_nms(packed, labels, scores, kernel, sigma).numpy()
    expected = vector["out_linear" if kernel == "linear" else "out_gaussian" + ("_sigma05" if sigma == 0.5 else "")]
    assert np.isfinite(found).all()
    assert np.abs(found - expected)[np.isfinite(expected)].max() <= 1e-5


def test_linear_matrix_nms_of_identical_masks_is_finite():
    masks = np.zeros([4, 4, 16], np.uint8)
    masks[:3, :2] = 1  # three times the same
    masks[3, 1:3] = 1  # a third of their union in common
    packed = tf.constant(np.packbits(masks.reshape(4, -1), axis=1))
    found = postprocess.matrix_nms(packed, tf.zeros([4], tf.int32), tf.constant([0.9, 0.8, 0.7, 0.6]), "linear", 2.0)
    np.testing.assert_allclose(found, [0.9, 0, 0, 0.6 * 2 / 3], atol=1e-6)


@pytest.mark.parametrize("count, pixels", [(1, 8), (13, 4000), (70, 16 * 64 * 3 + 8)])
def test_intersections_are_exact(count, pixels):
    masks = np.random.default_rng(0).integers(0, 2, [count, pixels]).astype(np.uint8)
    masks[: count // 2] |= 1  # full masks: the largest sums
    found = postprocess.mask_intersections(tf.constant(np.packbits(masks, axis=1))).numpy()
    wide = masks.astype(np.int64)
    assert np.array_equal(found, wide @ wide.T)


def test_bits_are_packed_as_numpy_does():
    bits = np.random.default_rng(0).integers(0, 2, [3, 4000]).astype(bool)
    assert np.array_equal(postprocess.pack_bits(tf.constant(bits)), np.packbits(bits, axis=1))


def test_pasted_masks_equal_the_two_resizes():
    rng = np.random.default_rng(0)
    blocks = rng.uniform(size=[6, 5, 7]).astype(np.float32)
    probabilities = tf.image.resize(blocks[..., None], [16, 24]).numpy()[..., 0]
    probabilities[0] = 0.1  # nothing above the threshold
    probabilities[1, :, :5] = 0  # not in the corner
    for image_size, original in (((64, 96), (64, 96)), ((50, 96), (201, 333)), ((64, 61), (17, 20)), ((3, 3), (9, 5))):
        soft = slow_soft_masks(probabilities, image_size, original)
        found = postprocess.paste_masks(probabilities, image_size, original, 0.5)
        sure = np.abs(soft - 0.5) > 1e-4
        assert np.array_equal(found[sure], (soft > 0.5)[sure])
        assert sure.mean() > 0.98
    assert not found[0].any()


SMALL = GridConfig(levels=("p3", "p4"), sizes=(20, 10), scale_ranges=((1, 64), (32, 512)))


def random_outputs(seed, batch=1, categories=4, shift=-1.0):
    rng = np.random.default_rng(seed)
    return {
        "category_logits": tf.constant(rng.normal(size=[batch, SMALL.num_cells, categories]) + shift, tf.float32),
        "kernels": tf.constant(rng.normal(size=[batch, SMALL.num_cells, 6]), tf.float32),
        "mask_features": tf.constant(rng.normal(size=[batch, 16, 24, 6]), tf.float32),
    }


def slow_detect(outputs, config):
    """The official order of operations for one image, all masks at once. -> scores, categories, probabilities."""
    scores = postprocess.points_nms(tf.sigmoid(outputs["category_logits"]), SMALL)[0].numpy()
    cells, categories = np.nonzero(scores > config.score_threshold)
    kernels = outputs["kernels"][0].numpy()[cells]
    features = outputs["mask_features"][0].numpy()
    probabilities = 1 / (1 + np.exp(-np.einsum("hwe,ne->nhw", features, kernels)))
    inside = probabilities > config.mask_threshold
    area = inside.sum((1, 2))
    keep = area > np.where(cells < 400, 8, 16)
    found = scores[cells, categories] * (probabilities * inside).sum((1, 2)) / np.maximum(area, 1)
    order = np.flatnonzero(keep)[np.argsort(-found[keep])][: config.max_candidates]
    inside, categories, found = inside[order].reshape(len(order), -1), categories[order], found[order]
    iou = np.zeros([len(order), len(order)])
    for j in range(len(order)):
        for i in range(j):
            if categories[i] == categories[j]:
                iou[i, j] = (inside[i] & inside[j]).sum() / (inside[i] | inside[j]).sum()
    decay = np.exp(-config.nms_sigma * iou**2) / np.exp(-config.nms_sigma * iou.max(axis=0) ** 2)[:, None]
    found = found * decay.min(axis=0)
    best = [i for i in np.argsort(-found) if found[i] >= config.update_threshold][: config.max_detections]
    return found[best], categories[best], probabilities[order][best]


@pytest.mark.parametrize("limit", [20, 150, 900])
def test_detections_equal_the_plain_order_of_operations(limit):
    config = PostprocessConfig(max_candidates=limit, max_detections=40)
    outputs = random_outputs(seed=limit)
    found = postprocess.detect(outputs, SMALL, config)
    scores, categories, probabilities = slow_detect(outputs, config)
    count = int(found["count"][0])
    assert count == len(scores) > 10
    np.testing.assert_allclose(found["scores"][0, :count], scores, rtol=1e-5)
    assert np.array_equal(found["categories"][0, :count], categories)
    np.testing.assert_allclose(found["mask_probabilities"][0, :count], probabilities, atol=1e-5)


def test_no_candidate_gives_no_detection():
    found = postprocess.detect(random_outputs(seed=0, batch=2, shift=-30.0), SMALL, PostprocessConfig())
    assert found["count"].numpy().tolist() == [0, 0]
    assert not found["scores"].numpy().any()


def test_masks_are_made_only_until_no_better_candidate_can_come(monkeypatch):
    """Cells below the threshold get no mask, nor those that cannot enter the best candidates."""
    made = []
    original = postprocess.mask_logits

    def counting(features, kernels, cells, grid):
        made.append(cells.shape[1])
        return original(features, kernels, cells, grid)

    monkeypatch.setattr(postprocess, "mask_logits", counting)
    outputs = random_outputs(seed=1)
    few = np.full([1, SMALL.num_cells, 4], -9.0, np.float32)
    few[0, [3, 77, 450], [0, 1, 2]] = 2.0
    postprocess.detect(outputs | {"category_logits": tf.constant(few)}, SMALL, PostprocessConfig(max_detections=10))
    assert made == [postprocess.CELLS_PER_CHUNK, 10]
    made.clear()
    config = PostprocessConfig(score_threshold=0.01, max_candidates=5, max_detections=5)
    postprocess.detect(outputs, SMALL, config)
    assert sum(made) < SMALL.num_cells / 2
