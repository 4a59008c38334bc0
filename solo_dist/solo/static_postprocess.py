"""`postprocess.detect` as a graph that any runtime can hold: fixed shapes, common operations, no loop, branch or bits.

Converters to LiteRT and ONNX take it whole. Every pair of cell and category that enters gets a mask as numbers, where
`detect` keeps bits and stops as soon as no better pair can come; so this form needs more memory.

The pairs that enter are the T with the highest category scores. `detect` ranks all pairs above the score threshold by
category score times mean mask probability, so the two differ only for an image with more than T such pairs;
`count_pairs` counts them. Shape legend: config.py; besides P = h*w, D = max_detections.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from solo_dist.config import GridConfig, ModelConfig, PostprocessConfig
from solo_dist.errors import ConfigError
from solo_dist.solo.candidates import min_areas
from solo_dist.solo.family import find_member
from solo_dist.solo.mask_map import mask_probabilities
from solo_dist.solo.nms import matrix_nms, points_nms


def detect_static(
    outputs: Mapping[str, tf.Tensor], model: ModelConfig, config: PostprocessConfig, pairs: int
) -> dict[str, tf.Tensor]:
    """Instances of a batch, as `postprocess.detect` returns them.

    Args:
      outputs: of the network.
      model: names the member of the family, and has its grid.
      config: thresholds and limits.
      pairs: T, how many pairs of cell and category get a mask.

    Raises:
      ConfigError: `one_category` is set, which takes a loop.
    """
    if config.one_category:
        raise ConfigError(
            "postprocess.one_category needs a loop, which this kind of export cannot hold: set it to false, or export "
            "with --format=savedmodel."
        )
    maps = find_member(model).mask_maps(outputs, model.grid)
    scores, cells, categories = _best_pairs(pair_scores(outputs, model.grid, config), pairs)
    probabilities = mask_probabilities(maps, cells)
    scores, inside = _scored_masks(scores, cells, probabilities, model.grid, config)
    if scores.shape[1] > config.max_candidates:
        least = tf.math.top_k(scores, config.max_candidates).values[:, -1:]
        scores = tf.where(scores >= least, scores, 0.0)
    decayed = matrix_nms(_mask_ious(inside), categories, scores, config.nms_kernel, config.nms_sigma)
    decayed = tf.where(decayed >= config.update_threshold, decayed, 0.0)
    return _best_detections(decayed, categories, probabilities, config.max_detections)


def pair_scores(outputs: Mapping[str, tf.Tensor], grid: GridConfig, config: PostprocessConfig) -> tf.Tensor:
    """Category scores float32 [B,N,C] after points-NMS, 0 unless above the score threshold."""
    scores = points_nms(tf.sigmoid(tf.cast(outputs["category_logits"], tf.float32)), grid)
    return tf.where(scores > config.score_threshold, scores, 0.0)


def count_pairs(outputs: Mapping[str, tf.Tensor], model: ModelConfig, config: PostprocessConfig) -> tf.Tensor:
    """How many pairs of cell and category each image has above the score threshold, int32 [B]."""
    pairs = pair_scores(outputs, model.grid, config) > 0
    return tf.reduce_sum(tf.cast(pairs, tf.int32), axis=[1, 2])


def _best_pairs(scores: tf.Tensor, limit: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The T best pairs of scores [B,N,C] -> float32 [B,T], their cells and categories, int32 [B,T]."""
    cells, categories = scores.shape[1:]
    best, flat = tf.math.top_k(tf.reshape(scores, [-1, cells * categories]), min(limit, cells * categories))
    return best, flat // categories, flat % categories


def _scored_masks(
    scores: tf.Tensor, cells: tf.Tensor, probabilities: tf.Tensor, grid: GridConfig, config: PostprocessConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Category scores [B,T] times the mean probability inside the mask, and the masks as 0 and 1, float32 [B,T,P]."""
    probabilities = tf.reshape(probabilities, [-1, cells.shape[1], np.prod(probabilities.shape[2:])])
    inside = tf.cast(probabilities > config.mask_threshold, tf.float32)
    area = tf.reduce_sum(inside, axis=2)
    confidence = tf.reduce_sum(probabilities * inside, axis=2) / tf.maximum(area, 1.0)
    large = area > tf.gather(tf.constant(min_areas(grid), tf.float32), cells)
    return scores * tf.where(large, confidence, 0.0), inside


def _mask_ious(inside: tf.Tensor) -> tf.Tensor:
    """IoU of all pairs of masks of an image, float32 [B,T,P] of 0 and 1 -> [B,T,T]; 0 if both are empty."""
    common = tf.matmul(inside, inside, transpose_b=True)
    area = tf.reduce_sum(inside, axis=2)
    return common / tf.maximum(area[:, :, None] + area[:, None, :] - common, 1.0)


def _best_detections(
    scores: tf.Tensor, categories: tf.Tensor, probabilities: tf.Tensor, detections: int
) -> dict[str, tf.Tensor]:
    """The D best of scores [B,T], categories [B,T] and probabilities [B,T,h,w], padded."""
    short = max(0, detections - scores.shape[1])
    best, order = tf.math.top_k(scores, detections - short)
    best, order = tf.pad(best, [[0, 0], [0, short]]), tf.pad(order, [[0, 0], [0, short]])
    return {
        "scores": best,
        "categories": tf.gather(categories, order, batch_dims=1),
        "mask_probabilities": tf.gather(probabilities, order, batch_dims=1),
        "count": tf.reduce_sum(tf.cast(best > 0, tf.int32), axis=1),
    }
