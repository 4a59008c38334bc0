"""From the network's outputs to instances: points-NMS, candidates, Matrix NMS, masks at the original size.

`detect` runs in the graph with static shapes. It never makes a mask for a cell below the score threshold, and of those
above only until no further cell can be among the best candidates. While it ranks, masks exist as bits; probabilities
are computed again for the few that survive, and `paste_masks` enlarges only the part of each that can exceed the
threshold.

Source: SOLO (Wang et al. 2020), Matrix NMS of SOLOv2, section 3.4, and the official code's behaviour: numbers of quirks
are those of the golden vectors. Shape legend: config.py; besides P = h*w, T = max_candidates, D = max_detections.
"""

import concurrent.futures
import functools
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.config import MASK_STRIDE, GridConfig, PostprocessConfig
from solo_dist.solo.dynamic_conv import mask_logits
from solo_dist.solo.targets import count_bits

# So many that the product of kernels and mask features runs near the full speed of a CPU.
CELLS_PER_CHUNK = 192
# A mask must cover more quarter-resolution pixels than its level's stride in the official grid head (quirk 13).
MIN_AREA = {"p2": 8, "p3": 8, "p4": 16, "p5": 32, "p6": 32}
_WORDS_PER_STEP = 16
# Small enough that the linear algebra library uses one thread for a block: there is one a mask already.
_PASTE_ROWS, _PASTE_COLUMNS, _PASTE_WIDTH = 16, 32, 1024
_PASTE_THREADS = 8


class Candidates(NamedTuple):
    """The best pairs of cell and category of one image, in descending order of score."""

    scores: tf.Tensor
    """float32 [T]: category score times mean probability inside the mask; 0 where there are fewer than T."""
    categories: tf.Tensor
    """int32 [T]."""
    cells: tf.Tensor
    """int32 [T], flat cell in N."""
    masks: tf.Tensor
    """uint8 [T,P/8], bits of the binary masks."""


def detect(outputs: Mapping[str, tf.Tensor], grid: GridConfig, config: PostprocessConfig) -> dict[str, tf.Tensor]:
    """Instances of a batch, best first, padded to D = max_detections.

    Args:
      outputs: category_logits [B,N,C], kernels [B,N,E], mask_features [B,h,w,E] (or [B,h,w,L*E]); h*w a multiple of 8.
      grid: the levels of the grid.
      config: thresholds and limits.

    Returns:
      scores float32 [B,D], 0 for padding; categories int32 [B,D]; mask_probabilities float32 [B,D,h,w], at a quarter of
      the canvas (see `paste_masks`); count int32 [B].
    """
    scores = points_nms(tf.sigmoid(tf.cast(outputs["category_logits"], tf.float32)), grid)
    detections = config.max_detections
    height, width = outputs["mask_features"].shape[1:3]
    return tf.map_fn(
        lambda image: _detect_image(image[0], image[1], image[2], grid, config),
        (scores, outputs["kernels"], outputs["mask_features"]),
        fn_output_signature={
            "scores": tf.TensorSpec([detections], tf.float32),
            "categories": tf.TensorSpec([detections], tf.int32),
            "mask_probabilities": tf.TensorSpec([detections, height, width], tf.float32),
            "count": tf.TensorSpec([], tf.int32),
        },
        parallel_iterations=1,
    )


def points_nms(scores: tf.Tensor, grid: GridConfig) -> tf.Tensor:
    """Sets scores [B,N,C] to 0 where a neighbour in the grid has a higher one of the same category.

    Quirk 13: a cell is compared with the ones above, left, and above left only, and ties survive.
    """
    levels = []
    for level, size in zip(tf.split(scores, [s * s for s in grid.sizes], axis=1), grid.sizes, strict=True):
        cells = tf.reshape(level, [-1, size, size, level.shape[2]])
        padded = tf.pad(cells, [[0, 0], [1, 0], [1, 0], [0, 0]], constant_values=-np.inf)
        around = tf.maximum(tf.maximum(padded[:, :-1, :-1], padded[:, :-1, 1:]), padded[:, 1:, :-1])
        kept = tf.where(cells >= around, cells, 0.0)
        levels.append(tf.reshape(kept, [-1, size * size, level.shape[2]]))
    return tf.concat(levels, axis=1)


def _detect_image(
    scores: tf.Tensor, kernels: tf.Tensor, features: tf.Tensor, grid: GridConfig, config: PostprocessConfig
) -> dict[str, tf.Tensor]:
    """`detect` of scores [N,C] after points-NMS, kernels [N,E], mask features [h,w,E]."""
    height, width = features.shape[:2]
    found = find_candidates(scores, kernels, features, grid, config)
    decayed = matrix_nms(found.masks, found.categories, found.scores, config.nms_kernel, config.nms_sigma)
    decayed = tf.where((decayed >= config.update_threshold) & (found.scores > 0), decayed, 0.0)
    short = max(0, config.max_detections - config.max_candidates)
    best, order = tf.math.top_k(decayed, config.max_detections - short)
    best, order = tf.pad(best, [[0, short]]), tf.pad(order, [[0, short]])
    logits = mask_logits(features[None], kernels[None], tf.gather(found.cells, order)[None], grid)[0]
    return {
        "scores": best,
        "categories": tf.gather(found.categories, order),
        "mask_probabilities": tf.reshape(tf.sigmoid(tf.cast(logits, tf.float32)), [-1, height, width]),
        "count": tf.reduce_sum(tf.cast(best > 0, tf.int32)),
    }


def find_candidates(
    scores: tf.Tensor, kernels: tf.Tensor, features: tf.Tensor, grid: GridConfig, config: PostprocessConfig
) -> Candidates:
    """The T best pairs of cell and category by category score times mean mask probability.

    Args:
      scores: float32 [N,C] after points-NMS; a cell can be a candidate in several categories (quirk 13).
      kernels: [N,E].
      features: mask features [h,w,E] or [h,w,L*E].
      grid: the levels of the grid.
      config: thresholds and limits.
    """
    categories, limit, chunk = scores.shape[1], config.max_candidates, CELLS_PER_CHUNK
    scores = tf.where(scores > config.score_threshold, scores, 0.0)
    ceiling = tf.reduce_max(scores, axis=1)
    # Cells by descending category score: a mean probability is at most 1, so once the T-th best final score reaches
    # the next cell's category score, no cell to come can enter.
    pad = -grid.num_cells % chunk
    ceiling, order = tf.math.top_k(ceiling, grid.num_cells)
    ceiling, order = tf.pad(ceiling, [[0, pad + chunk]]), tf.pad(order, [[0, pad]])
    chunks = order.shape[0] // chunk
    min_area = tf.constant(
        np.repeat([MIN_AREA[level] for level in grid.levels], [s * s for s in grid.sizes]), tf.float32
    )
    pixels = features.shape[0] * features.shape[1]

    def body(i, best, flat, masks):
        cells = tf.gather(order, i * chunk + tf.range(chunk))
        probabilities = tf.sigmoid(
            tf.cast(mask_logits(features[None], kernels[None], cells[None], grid)[0], tf.float32)
        )
        # The mean probability inside, as threshold plus mean excess: two passes less over the largest tensor.
        excess = tf.nn.relu(probabilities - config.mask_threshold)
        bits = pack_bits(excess > 0)
        area = count_bits(bits)
        confidence = config.mask_threshold + tf.reduce_sum(excess, axis=1) / tf.maximum(area, 1.0)
        confidence = tf.where(area > tf.gather(min_area, cells), confidence, 0.0)
        in_chunk = tf.cast(tf.range(chunk) + i * chunk < grid.num_cells, tf.float32)
        final = tf.gather(scores, cells) * (confidence * in_chunk)[:, None]
        # A pair is known by its place: row in the order of cells, times C, plus category.
        places = i * chunk * categories + tf.range(chunk * categories)
        best, kept = tf.math.top_k(tf.concat([best, tf.reshape(final, [-1])], axis=0), limit)
        flat = tf.gather(tf.concat([flat, places], axis=0), kept)
        return i + 1, best, flat, masks.write(i, bits)

    def going_on(i, best, flat, masks):
        del flat, masks
        return (i < chunks) & (ceiling[i * chunk] > best[-1])

    masks = tf.TensorArray(tf.uint8, chunks, element_shape=[chunk, pixels // 8])
    start = (0, tf.zeros([limit]), tf.zeros([limit], tf.int32), masks)
    _, best, flat, masks = tf.while_loop(going_on, body, start, parallel_iterations=1)
    rows = flat // categories
    masks = tf.gather(tf.reshape(masks.stack(), [-1, pixels // 8]), rows)
    return Candidates(best, flat % categories, tf.gather(order, rows), masks)


def pack_bits(bits: tf.Tensor) -> tf.Tensor:
    """Bool [n,P] -> uint8 [n,P/8], highest bit first, as numpy.packbits."""
    count, pixels = bits.shape
    eight_bytes = tf.bitcast(tf.reshape(tf.cast(bits, tf.uint8), [count, pixels // 8, 8]), tf.int64)
    # The product moves the lowest bit of byte i to bit 7 - i of the highest byte.
    highest_byte = tf.bitwise.right_shift(eight_bytes * (0x8040201008040201 - 2**64), 56)
    return tf.cast(tf.bitwise.bitwise_and(highest_byte, 255), tf.uint8)


def matrix_nms(masks: tf.Tensor, categories: tf.Tensor, scores: tf.Tensor, kernel: str, sigma: float) -> tf.Tensor:
    """Scores after Matrix NMS: each is decayed by its overlaps with higher ones of the same category.

    Args:
      masks: uint8 [T,P/8], bits of binary masks, best score first.
      categories: int32 [T].
      scores: float32 [T], descending.
      kernel: gaussian, exp(-sigma iou^2), or linear, 1 - iou.
      sigma: of the gaussian.

    Returns:
      float32 [T], finite.
    """
    common = mask_intersections(masks)
    areas = tf.linalg.diag_part(common)
    union = areas[:, None] + areas[None, :] - common
    above = tf.range(masks.shape[0])[:, None] < tf.range(masks.shape[0])[None, :]
    overlapping = above & (categories[:, None] == categories[None, :]) & (common > 0)
    iou = tf.where(overlapping, common / tf.maximum(union, 1.0), 0.0)
    # What has itself been overlapped by still higher ones decays others less: divided by its own decay.
    covered = tf.reduce_max(iou, axis=0)[:, None]
    if kernel == "gaussian":
        decay = tf.exp(sigma * (covered**2 - iou**2))
    else:
        # Quirk 15: for identical masks the official 0/0 is NaN. The first of several equal masks is covered by none
        # and takes the others to 0; those must not raise what they overlap, which a tiny divisor ensures.
        decay = (1.0 - iou) / tf.maximum(1.0 - covered, 1e-7)
    return scores * tf.reduce_min(decay, axis=0)


@tf.function(jit_compile=True)
@tf.autograph.experimental.do_not_convert
def mask_intersections(masks: tf.Tensor) -> tf.Tensor:
    """Numbers of common pixels of masks uint8 [T,P/8] of bits -> float32 [T,T].

    Compiled, this is one loop of and, population count and add over words of 64 pixels, several times faster than the
    product of the masks as numbers, and exact.
    """
    count, size = masks.shape
    masks = tf.pad(masks, [[0, 0], [0, -size % (8 * _WORDS_PER_STEP)]])
    words = tf.transpose(tf.bitcast(tf.reshape(masks, [count, -1, 8]), tf.int64))
    words = tf.reshape(words, [-1, _WORDS_PER_STEP, count])

    def add_words(step, common):
        for word in tf.unstack(words[step]):
            both = tf.bitwise.bitwise_and(word[:, None], word[None, :])
            common += tf.cast(tf.raw_ops.PopulationCount(x=both), tf.int32)
        return step + 1, common

    start = (0, tf.zeros([count, count], tf.int32))
    _, common = tf.while_loop(lambda step, _: step < words.shape[0], add_words, start)
    return tf.cast(common, tf.float32)


def paste_masks(
    mask_probabilities: np.ndarray, image_size: tuple[int, int], original_size: tuple[int, int], threshold: float
) -> np.ndarray:
    """Binary masks at the size of the original picture.

    Quirk 14: probabilities are enlarged four times, cut to the picture without its padding, resized to the original
    size, both bilinearly with half-pixel centres, and only then compared. Along an axis the steps are linear, together
    a matrix with a few neighbours a row. It is applied block by block to the part of a mask that can exceed the
    threshold.

    Args:
      mask_probabilities: float32 [n,h,w], at a quarter of the canvas.
      image_size: height and width of the picture inside the canvas.
      original_size: height and width of the result.
      threshold: of the probability, exclusive.

    Returns:
      Bool [n, original height, original width].
    """
    masks = np.zeros([len(mask_probabilities), *original_size], bool)
    rows = _axis(mask_probabilities.shape[1], int(image_size[0]), int(original_size[0]))
    columns = _axis(mask_probabilities.shape[2], int(image_size[1]), int(original_size[1]))
    with concurrent.futures.ThreadPoolExecutor(min(_PASTE_THREADS, os.cpu_count() or 1)) as pool:
        paste = functools.partial(_paste, rows=rows, columns=columns, threshold=threshold)
        list(pool.map(paste, masks, mask_probabilities))  # NumPy lets other threads work meanwhile
    return masks


class _Axis(NamedTuple):
    """Interpolation along one axis, from the mask features to the original picture."""

    weights: np.ndarray
    """float32 [original, source]; a few neighbours in each row are not 0."""
    first: np.ndarray
    """int [original], the first source that counts for each pixel; does not fall."""
    end: np.ndarray
    """int [original], one past the last."""


@functools.lru_cache(maxsize=64)
def _axis(source: int, image: int, original: int) -> _Axis:
    """x4, then the first `image` values, then resized to `original`."""
    weights = _bilinear(image, original) @ _bilinear(source, MASK_STRIDE * source)[:image]
    counts = weights > 0
    return _Axis(weights.astype(np.float32), counts.argmax(axis=1), source - counts[:, ::-1].argmax(axis=1))


def _bilinear(source: int, target: int) -> np.ndarray:
    """Float64 [target, source]: weights of linear interpolation with half-pixel centres, clamped at the ends."""
    position = ((np.arange(target) + 0.5) * (source / target) - 0.5).clip(0, source - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, source - 1)
    matrix = np.zeros([target, source])
    np.add.at(matrix, (np.arange(target), low), 1 - (position - low))
    np.add.at(matrix, (np.arange(target), high), position - low)
    return matrix


def _paste(mask: np.ndarray, probability: np.ndarray, rows: _Axis, columns: _Axis, threshold: float) -> None:
    """Sets the pixels of a mask, bool [H0,W0], whose interpolated probability, from [h,w], exceeds the threshold."""
    inside = probability > threshold
    if not inside.any():
        return
    # An interpolated value exceeds the threshold only where one of its sources does.
    y0, y1 = _reach(rows, np.flatnonzero(inside.any(axis=1)))
    x0, x1 = _reach(columns, np.flatnonzero(inside.any(axis=0)))
    if y0 == y1 or x0 == x1:
        return
    top, bottom = rows.first[y0], rows.end[y1 - 1]
    wide = np.empty([bottom - top, x1 - x0], np.float32)
    for x, stop in _blocks(x0, x1, _PASTE_COLUMNS):
        sources = slice(columns.first[x], columns.end[stop - 1])
        wide[:, x - x0 : stop - x0] = probability[top:bottom, sources] @ columns.weights[x:stop, sources].T
    for y, stop in _blocks(y0, y1, _PASTE_ROWS):
        sources = slice(rows.first[y], rows.end[stop - 1])
        part = wide[sources.start - top : sources.stop - top]
        for x, x_stop in _blocks(0, x1 - x0, _PASTE_WIDTH):
            values = rows.weights[y:stop, sources] @ part[:, x:x_stop]
            np.greater(values, threshold, out=mask[y:stop, x0 + x : x0 + x_stop])


def _blocks(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, size):
        yield first, min(first + size, stop)


def _reach(axis: _Axis, inside: np.ndarray) -> tuple[int, int]:
    """First and one past the last pixel that the sources from inside[0] to inside[-1] count for."""
    start = int(np.searchsorted(axis.end, inside[0], side="right"))
    return start, max(start, int(np.searchsorted(axis.first, inside[-1], side="right")))
