"""Post-processing against the official implementation, and its fast parts against plain versions."""

import json

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import GridConfig, ModelConfig, PostprocessConfig
from solo_dist.masks.paste import paste_masks
from solo_dist.solo import candidates, postprocess
from solo_dist.solo.mask_map import MaskMap
from solo_dist.solo.nms import points_nms
from tests.golden.compare import flatten_levels, unpack
from tests.masks.test_paste import slow_soft_masks


def logit(probability):
    probability = probability.astype(np.float64)
    return np.log(probability / (1 - probability))


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
    detect = tf.function(lambda outputs: postprocess.detect(outputs, ModelConfig(), config), jit_compile=jit)
    found = {key: value.numpy() for key, value in detect(infer_outputs(golden, name)).items()}
    image_size, original = tuple(vector["img_shape"]), tuple(vector["ori_shape"])
    for i in range(2):
        check_detections(found, vector, i, image_size, original)


def check_detections(found, vector, i, image_size, original):
    """The detections of image i are the official ones, down to pixels of masks that are not at the threshold."""
    count = int(vector[f"n_{i}"])
    assert found["count"][i] == count
    scores, labels = vector[f"scores_{i}"], vector[f"labels_{i}"]
    masks = unpack(vector[f"masks_{i}"], original)
    assert np.abs(found["scores"][i, :count] - scores).max() <= 1e-4
    pasted = paste_masks(found["mask_probabilities"][i, :count], image_size, original, 0.5)
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


SMALL = GridConfig(levels=("p3", "p4"), sizes=(20, 10), scale_ranges=((1, 64), (32, 512)))
SMALL_MODEL = ModelConfig(grid=SMALL)


def random_outputs(seed, batch=1, categories=4, shift=-1.0):
    rng = np.random.default_rng(seed)
    return {
        "category_logits": tf.constant(rng.normal(size=[batch, SMALL.num_cells, categories]) + shift, tf.float32),
        "kernels": tf.constant(rng.normal(size=[batch, SMALL.num_cells, 6]), tf.float32),
        "mask_features": tf.constant(rng.normal(size=[batch, 16, 24, 6]), tf.float32),
    }


def slow_detect(outputs, config):
    """The official order of operations for one image, all masks at once. -> scores, categories, probabilities."""
    scores = points_nms(tf.sigmoid(outputs["category_logits"]), SMALL)[0].numpy()
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
    found = postprocess.detect(outputs, SMALL_MODEL, config)
    scores, categories, probabilities = slow_detect(outputs, config)
    count = int(found["count"][0])
    assert count == len(scores) > 10
    np.testing.assert_allclose(found["scores"][0, :count], scores, rtol=1e-5)
    assert np.array_equal(found["categories"][0, :count], categories)
    np.testing.assert_allclose(found["mask_probabilities"][0, :count], probabilities, atol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_an_instance_has_one_label_if_asked(jit):
    """Two cells with masks of their own; one is likely in three categories, the other in one."""
    logits = np.full([1, SMALL.num_cells, 4], -9.0, np.float32)
    logits[0, 0], logits[0, 40] = [3, 2, 1, -9], [-9, -9, 2.5, -9]
    features = np.zeros([1, 16, 24, 6], np.float32)
    features[0, :, :12, 0] = features[0, :, 12:, 1] = 9
    kernels = np.full([1, SMALL.num_cells, 6], -1.0, np.float32)
    kernels[0, 0, 0] = kernels[0, 40, 1] = 1
    outputs = {"category_logits": logits, "kernels": kernels, "mask_features": features}
    outputs = {name: tf.constant(value) for name, value in outputs.items()}
    found = {}

    def detection(config):
        return tf.function(lambda outputs: postprocess.detect(outputs, SMALL_MODEL, config), jit_compile=jit)

    for one in (False, True):
        detected = detection(PostprocessConfig(max_candidates=50, one_category=one))(outputs)
        found[one] = detected["categories"][0, : int(detected["count"][0])].numpy().tolist()
    assert found == {False: [0, 2, 1, 2], True: [0, 2]}


def test_no_candidate_gives_no_detection():
    found = postprocess.detect(random_outputs(seed=0, batch=2, shift=-30.0), SMALL_MODEL, PostprocessConfig())
    assert found["count"].numpy().tolist() == [0, 0]
    assert not found["scores"].numpy().any()


def test_masks_are_made_only_until_no_better_candidate_can_come(monkeypatch):
    """Cells below the threshold get no mask, nor those that cannot enter the best candidates."""
    made = []
    original = MaskMap.probabilities

    def counting(mask_map, own):
        made.append(own.shape[1])
        return original(mask_map, own)

    monkeypatch.setattr(MaskMap, "probabilities", counting)
    outputs = random_outputs(seed=1)
    many = outputs["category_logits"]
    few = np.full([1, SMALL.num_cells, 4], -9.0, np.float32)
    few[0, [3, 77, 450], [0, 1, 2]] = 2.0
    postprocess.detect(
        outputs | {"category_logits": tf.constant(few)}, SMALL_MODEL, PostprocessConfig(max_detections=10)
    )
    assert made == [candidates.CELLS_PER_CHUNK, 10]
    made.clear()
    config = PostprocessConfig(score_threshold=0.01, max_candidates=5, max_detections=5)
    postprocess.detect(outputs | {"category_logits": many}, SMALL_MODEL, config)
    assert sum(made) < SMALL.num_cells / 2


@pytest.mark.parametrize("shift", [-4.5, -1.0])  # few candidates, and more than _FEW
@pytest.mark.parametrize("one_category", [False, True])
def test_suppression_among_few_candidates_is_that_among_all(monkeypatch, shift, one_category):
    outputs = random_outputs(3, shift=shift)
    config = PostprocessConfig(score_threshold=0.1, update_threshold=0.01, one_category=one_category)
    found = postprocess.detect(outputs, SMALL_MODEL, config)
    monkeypatch.setattr(postprocess, "_FEW", config.max_candidates)  # no shortcut
    expected = postprocess.detect(outputs, SMALL_MODEL, config)
    assert int(found["count"][0]) > 0
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])
