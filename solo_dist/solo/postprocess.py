"""From the network's outputs to instances with masks at a quarter of the canvas.

`detect` runs in the graph with static shapes. Mask probabilities are computed again for the few candidates that survive
Matrix NMS; `masks.paste` enlarges them to the size of the original image.

Source: SOLO (Wang et al. 2020), SOLOv2, section 3.4, and the official code's behaviour (numbered quirks:
docs/numerics.md). Shape legend: config.py; besides D = max_detections.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from solo_dist.config import GridConfig, ModelConfig, PostprocessConfig
from solo_dist.solo.candidates import Candidates, find_candidates
from solo_dist.solo.family import find_member
from solo_dist.solo.mask_map import MaskMap, mask_probabilities
from solo_dist.solo.nms import keep_one_category, mask_ious, matrix_nms, points_nms


def detect(
    outputs: Mapping[str, tf.Tensor], model: ModelConfig, config: PostprocessConfig, compiled: bool = False
) -> dict[str, tf.Tensor]:
    """Instances of a batch, best first, padded to D = max_detections.

    Args:
      outputs: of the network; h*w must be a multiple of 8.
      model: names the member of the family, and has its grid.
      config: thresholds and limits.
      compiled: let XLA compile the part that it makes faster.

    Returns:
      scores float32 [B,D], 0 for padding; categories int32 [B,D]; mask_probabilities float32 [B,D,h,w], at a quarter of
      the canvas (see `paste_masks`); count int32 [B].
    """
    scores = points_nms(tf.sigmoid(tf.cast(outputs["category_logits"], tf.float32)), model.grid)
    maps = find_member(model).mask_maps(outputs, model.grid)
    detections = config.max_detections
    return tf.map_fn(
        lambda image: _detect_image(scores[image], [m.of_image(image) for m in maps], model.grid, config, compiled),
        tf.range(tf.shape(scores)[0]),
        fn_output_signature={
            "scores": tf.TensorSpec([detections], tf.float32),
            "categories": tf.TensorSpec([detections], tf.int32),
            "mask_probabilities": tf.TensorSpec([detections, *maps[0].mask_size], tf.float32),
            "count": tf.TensorSpec([], tf.int32),
        },
        parallel_iterations=1,
    )


_FEW = 96
"""Candidates that most images have at most: suppression takes time with the square of their number."""


def _detect_image(
    scores: tf.Tensor, maps: Sequence[MaskMap], grid: GridConfig, config: PostprocessConfig, compiled: bool
) -> dict[str, tf.Tensor]:
    """`detect` of one image: scores [N,C] after points-NMS, and its maps, B = 1."""
    found = find_candidates(scores, maps, grid, config)
    decayed = _without_duplicates(found, config, compiled)
    short = max(0, config.max_detections - config.max_candidates)
    best, order = tf.math.top_k(decayed, config.max_detections - short)
    best, order = tf.pad(best, [[0, short]]), tf.pad(order, [[0, short]])
    return {
        "scores": best,
        "categories": tf.gather(found.categories, order),
        "mask_probabilities": mask_probabilities(maps, tf.gather(found.cells, order)[None])[0],
        "count": tf.reduce_sum(tf.cast(best > 0, tf.int32)),
    }


def _without_duplicates(found: Candidates, config: PostprocessConfig, compiled: bool) -> tf.Tensor:
    """Scores of candidates after suppression, float32 [T], 0 for what is left out."""

    def among(count: int) -> tf.Tensor:
        scores, categories, _, masks = (values[:count] for values in found)
        ious = mask_ious(masks, compiled)
        decayed = matrix_nms(ious, categories, scores, config.nms_kernel, config.nms_sigma)
        decayed = tf.where((decayed >= config.update_threshold) & (scores > 0), decayed, 0.0)
        if config.one_category:
            decayed = keep_one_category(ious, categories, decayed)
        return tf.pad(decayed, [[0, config.max_candidates - count]])

    if config.max_candidates <= _FEW:
        return among(config.max_candidates)
    # Best first, so all others have a score of 0 as well.
    return tf.cond(found.scores[_FEW] > 0, lambda: among(config.max_candidates), lambda: among(_FEW))
