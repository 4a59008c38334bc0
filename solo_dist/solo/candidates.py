"""The best pairs of cell and category of an image: the candidates that enter Matrix NMS.

No mask is made for a cell below the score threshold. Of the others, masks are made in the order of the score until
no further cell can be among the best. While candidates are ranked, masks are stored as bits. Shape legend:
config.py; besides P = h*w, T = max_candidates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.config import GridConfig, PostprocessConfig
from solo_dist.masks.bits import count_bits, pack_bits
from solo_dist.solo.mask_map import MaskMap

# Large enough for the product of kernels and mask features to run near the full speed of a CPU.
CELLS_PER_CHUNK = 192
# A mask must cover more quarter-resolution pixels than its level's stride in the official grid head (quirk 13).
MIN_AREA = {"p2": 8, "p3": 8, "p4": 16, "p5": 32, "p6": 32}


class Candidates(NamedTuple):
    """The best pairs of cell and category of one image, in descending order of score."""

    scores: tf.Tensor
    """float32 [T]: category score times mean probability inside the mask; 0 if there are fewer than T."""
    categories: tf.Tensor
    """int32 [T]."""
    cells: tf.Tensor
    """int32 [T], flat cell in N."""
    masks: tf.Tensor
    """uint8 [T,P/8], bits of the binary masks."""


def find_candidates(
    scores: tf.Tensor, maps: Sequence[MaskMap], grid: GridConfig, config: PostprocessConfig
) -> Candidates:
    """The T best pairs of cell and category by category score times mean mask probability.

    Args:
      scores: float32 [N,C] after points-NMS; a cell can be a candidate in several categories (quirk 13).
      maps: of one image, B = 1.
      grid: the levels of the grid.
      config: thresholds and limits.
    """
    scores = tf.where(scores > config.score_threshold, scores, 0.0)
    min_area = min_areas(grid)
    found = None
    for mask_map in maps:
        cells = slice(mask_map.first_cell, mask_map.first_cell + mask_map.num_cells)
        least = tf.constant(0.0) if found is None else found.scores[-1]
        more = _best_of_map(scores[cells], mask_map, min_area[cells], least, config)
        found = more if found is None else _merge(found, more)
    assert found is not None
    return found


def min_areas(grid: GridConfig) -> np.ndarray:
    """The number of pixels at a quarter of the canvas that the mask of each cell must exceed, int [N]."""
    return np.repeat([MIN_AREA[level] for level in grid.levels], [size * size for size in grid.sizes])


def _best_of_map(
    scores: tf.Tensor, mask_map: MaskMap, min_area: np.ndarray, least: tf.Tensor, config: PostprocessConfig
) -> Candidates:
    """`find_candidates` among the n cells of a map; those with scores of at most `least` may be left out.

    Args:
      scores: float32 [n,C], 0 below the threshold.
      mask_map: of one image.
      min_area: int [n], pixels that a mask must exceed.
      least: float32 scalar.
      config: thresholds and limits.
    """
    (cells, categories), limit, chunk = scores.shape, config.max_candidates, CELLS_PER_CHUNK
    # Cells by descending category score: a mean probability is at most 1, so once the T-th best final score reaches
    # the next cell's category score, no cell to come can enter.
    pad = -cells % chunk
    ceiling, order = tf.math.top_k(tf.reduce_max(scores, axis=1), cells)
    ceiling, order = tf.pad(ceiling, [[0, pad + chunk]]), tf.pad(order, [[0, pad]])
    chunks = order.shape[0] // chunk
    min_areas = tf.constant(min_area, tf.float32)
    pixels = mask_map.mask_size[0] * mask_map.mask_size[1]

    def body(i, best, flat, masks):
        own = tf.gather(order, i * chunk + tf.range(chunk))
        # The mean probability inside, as threshold plus mean excess: two passes less over the largest tensor.
        excess = tf.nn.relu(mask_map.probabilities(own[None])[0] - config.mask_threshold)
        bits = pack_bits(excess > 0)
        area = count_bits(bits)
        confidence = config.mask_threshold + tf.reduce_sum(excess, axis=1) / tf.maximum(area, 1.0)
        confidence = tf.where(area > tf.gather(min_areas, own), confidence, 0.0)
        in_chunk = tf.cast(tf.range(chunk) + i * chunk < cells, tf.float32)
        final = tf.gather(scores, own) * (confidence * in_chunk)[:, None]
        # The index of a pair is its row in the order of cells, times C, plus its category.
        places = i * chunk * categories + tf.range(chunk * categories)
        best, kept = tf.math.top_k(tf.concat([best, tf.reshape(final, [-1])], axis=0), limit)
        flat = tf.gather(tf.concat([flat, places], axis=0), kept)
        return i + 1, best, flat, masks.write(i, bits)

    def going_on(i, best, flat, masks):
        del flat, masks
        return (i < chunks) & (ceiling[i * chunk] > tf.maximum(best[-1], least))

    masks = tf.TensorArray(tf.uint8, chunks, element_shape=[chunk, pixels // 8])
    start = (0, tf.zeros([limit]), tf.zeros([limit], tf.int32), masks)
    _, best, flat, masks = tf.while_loop(going_on, body, start, parallel_iterations=1)
    rows = flat // categories
    masks = tf.gather(tf.reshape(masks.stack(), [-1, pixels // 8]), rows)
    return Candidates(best, flat % categories, mask_map.first_cell + tf.gather(order, rows), masks)


def _merge(one: Candidates, other: Candidates) -> Candidates:
    """The best T of two lists of candidates."""
    scores, kept = tf.math.top_k(tf.concat([one.scores, other.scores], axis=0), one.scores.shape[0])
    pairs = zip(one[1:], other[1:], strict=True)
    return Candidates(scores, *(tf.gather(tf.concat(pair, axis=0), kept) for pair in pairs))
