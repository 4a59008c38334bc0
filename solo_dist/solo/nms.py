"""Suppression of duplicates: points-NMS on the grids, and Matrix NMS on the masks.

Source: SOLO (Wang et al. 2020), Matrix NMS of SOLOv2, section 3.4, and the official code's behaviour (numbered quirks:
docs/numerics.md). Shape legend: config.py; besides P = h*w, T = max_candidates.
"""

import tensorflow as tf

from solo_dist.config import GridConfig

SAME_INSTANCE = 0.5
"""IoU above which two masks count as the same instance: the threshold of AP50; different instances rarely reach it."""
_WORDS_PER_STEP = 16
_ROWS_PER_BLOCK = 128


def points_nms(scores: tf.Tensor, grid: GridConfig) -> tf.Tensor:
    """Sets scores [B,N,C], none below 0, to 0 if a neighbour in the grid has a higher one of the same category.

    Quirk 13: a cell is compared with the ones above, left, and above left only, and ties survive.
    """
    levels = []
    for level, size in zip(tf.split(scores, [s * s for s in grid.sizes], axis=1), grid.sizes, strict=True):
        cells = tf.reshape(level, [-1, size, size, level.shape[2]])
        padded = tf.pad(cells, [[0, 0], [1, 0], [1, 0], [0, 0]])
        around = tf.maximum(tf.maximum(padded[:, :-1, :-1], padded[:, :-1, 1:]), padded[:, 1:, :-1])
        kept = tf.where(cells >= around, cells, 0.0)
        levels.append(tf.reshape(kept, [-1, size * size, level.shape[2]]))
    return tf.concat(levels, axis=1)


def matrix_nms(ious: tf.Tensor, categories: tf.Tensor, scores: tf.Tensor, kernel: str, sigma: float) -> tf.Tensor:
    """Scores after Matrix NMS: each is decayed by its overlaps with higher-scoring masks of the same category.

    Args:
      ious: float32 [...,T,T], of all pairs of masks.
      categories: int32 [...,T].
      scores: float32 [...,T] in any order; of equal ones, the first counts as the highest.
      kernel: gaussian, exp(-sigma iou^2), or linear, 1 - iou.
      sigma: of the gaussian.

    Returns:
      float32 [...,T], finite.
    """
    places = tf.range(ious.shape[-1])
    tie = (scores[..., :, None] == scores[..., None, :]) & (places[:, None] < places[None, :])
    above = (scores[..., :, None] > scores[..., None, :]) | tie
    iou = tf.where(above & (categories[..., :, None] == categories[..., None, :]), ious, 0.0)
    # `covered[i]` is the largest IoU of mask i with a higher-scoring mask of its category. The decay that i causes is
    # divided by the decay for that IoU, so a suppressed mask suppresses others less (SOLOv2, section 3.4).
    covered = tf.reduce_max(iou, axis=-2)[..., None]
    if kernel == "gaussian":
        decay = tf.exp(sigma * (covered**2 - iou**2))
    else:
        # Quirk 15: for identical masks the official code computes 0 / 0. The first of several equal masks is not
        # covered and takes the scores of the others to 0. The least divisor keeps their decay of further masks finite.
        decay = (1.0 - iou) / tf.maximum(1.0 - covered, 1e-7)
    return scores * tf.reduce_min(decay, axis=-2)


def keep_one_category(ious: tf.Tensor, categories: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """Scores, 0 for masks that give an instance a second label: greedy NMS between categories.

    A mask is dropped if its IoU with a mask of another category and a higher score, which is not dropped itself, is
    above SAME_INSTANCE. All masks are decided at once, repeatedly until nothing changes (Cluster-NMS, Zheng et al.
    2020): round r is right for the r best masks, so the result is that of taking masks one by one.

    Args:
      ious: float32 [T,T], `mask_ious` of the masks in any order.
      categories: int32 [T].
      scores: float32 [T].

    Returns:
      float32 [T].
    """
    rank = tf.argsort(tf.argsort(scores, direction="DESCENDING", stable=True))
    better = (rank[:, None] < rank[None, :]) & (scores > 0)[:, None]
    drops = better & (categories[:, None] != categories[None, :]) & (ious > SAME_INSTANCE)

    def body(kept, changed):
        del changed
        now = ~tf.reduce_any(drops & kept[:, None], axis=0)
        return now, tf.reduce_any(now != kept)

    kept, _ = tf.while_loop(lambda kept, changed: changed, body, (scores > 0, True))
    return tf.where(kept, scores, 0.0)


def mask_ious(masks: tf.Tensor, compiled: bool = False) -> tf.Tensor:
    """IoU of all pairs of masks, uint8 [T,P/8] of bits -> float32 [T,T]; 0 if both are empty.

    Args:
      masks: the masks.
      compiled: let XLA compile the intersections, which makes them four times faster on a CPU.
    """
    upper = tf.linalg.band_part((_compiled_intersections if compiled else mask_intersections)(masks), 0, -1)
    areas = tf.linalg.diag_part(upper)
    common = tf.linalg.set_diag(upper + tf.transpose(upper), areas)
    union = areas[:, None] + areas[None, :] - common
    return common / tf.maximum(union, 1.0)


def mask_intersections(masks: tf.Tensor) -> tf.Tensor:
    """Numbers of common pixels of masks, uint8 [T,P/8] of bits -> float32 [T,T], 0 for some pairs below the diagonal.

    An and, a population count and an addition over words of 64 pixels: exact, and several times faster than the product
    of the masks as numbers. The rows come in blocks, of which only the columns from the diagonal on are computed.
    """
    count, size = masks.shape
    masks = tf.pad(masks, [[0, 0], [0, -size % (8 * _WORDS_PER_STEP)]])
    words = tf.transpose(tf.bitcast(tf.reshape(masks, [count, -1, 8]), tf.int64))
    words = tf.reshape(words, [-1, _WORDS_PER_STEP, count])
    blocks = [(first, min(first + _ROWS_PER_BLOCK, count)) for first in range(0, count, _ROWS_PER_BLOCK)]

    def add_words(step, common):
        for word in tf.unstack(words[step]):
            for index, (first, end) in enumerate(blocks):
                both = tf.bitwise.bitwise_and(word[first:end, None], word[None, first:])
                common[index] += tf.cast(tf.raw_ops.PopulationCount(x=both), tf.int32)
        return step + 1, common

    start = (0, [tf.zeros([end - first, count - first], tf.int32) for first, end in blocks])
    _, common = tf.while_loop(lambda step, _: step < words.shape[0], add_words, start, parallel_iterations=1)
    rows = [tf.pad(part, [[0, 0], [first, 0]]) for (first, _), part in zip(blocks, common, strict=True)]
    return tf.cast(tf.concat(rows, axis=0), tf.float32)


_compiled_intersections = tf.function(mask_intersections, jit_compile=True, autograph=False)
"""`mask_intersections` as one fused loop: about four times faster on a CPU, and one launch a step on a GPU."""
