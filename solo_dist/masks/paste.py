"""Masks at the size of the original image, from probabilities at a quarter of the canvas.

Quirk 14: probabilities are enlarged four times, cut to the image without its padding, and resized to the original size,
both bilinearly with half-pixel centres. Only then are they compared with the threshold.
"""

import concurrent.futures
import functools
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.config import MASK_STRIDE
from solo_dist.masks.bilinear import bilinear_matrix

# So small that the linear algebra library uses one thread for a block, as each mask has a thread already.
_PASTE_ROWS, _PASTE_COLUMNS, _PASTE_WIDTH = 16, 32, 1024
_PASTE_THREADS = 8


def paste_masks(
    mask_probabilities: np.ndarray, image_size: tuple[int, int], original_size: tuple[int, int], threshold: float
) -> np.ndarray:
    """Binary masks at the size of the original image, in NumPy and several threads.

    Along an axis, the steps of quirk 14 are linear, so together they are a matrix with a few non-zero weights a
    row. It is applied block by block to the part of a mask that can exceed the threshold.

    Args:
      mask_probabilities: float32 [n,h,w], at a quarter of the canvas.
      image_size: height and width of the image inside the canvas.
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
        list(pool.map(paste, masks, mask_probabilities))  # NumPy releases the interpreter's lock meanwhile
    return masks


def paste_masks_in_graph(
    probabilities: tf.Tensor, image_size: tf.Tensor, original_size: tf.Tensor, threshold: float
) -> tf.Tensor:
    """`paste_masks` in a TensorFlow graph: float32 [n,h,w], sizes int32 [2] -> bool [n,H0,W0]."""
    height, width = probabilities.shape[1:]

    def paste(mask: tf.Tensor) -> tf.Tensor:
        large = tf.image.resize(mask[..., None], [MASK_STRIDE * height, MASK_STRIDE * width])
        return tf.image.resize(large[: image_size[0], : image_size[1]], original_size)[..., 0] > threshold

    spec = tf.TensorSpec([None, None], tf.bool)
    return tf.map_fn(paste, probabilities, fn_output_signature=spec, parallel_iterations=1)


class _Axis(NamedTuple):
    """Interpolation along one axis, from the probabilities to the original image."""

    weights: np.ndarray
    """float32 [original, source]; a few neighbours in each row are not 0."""
    first: np.ndarray
    """int [original], the first source that counts for each pixel; does not fall."""
    end: np.ndarray
    """int [original], one past the last."""


@functools.lru_cache(maxsize=64)
def _axis(source: int, image: int, original: int) -> _Axis:
    """x4, then the first `image` values, then resized to `original`."""
    weights = bilinear_matrix(image, original) @ bilinear_matrix(source, MASK_STRIDE * source)[:image]
    counts = weights > 0
    return _Axis(weights, counts.argmax(axis=1), source - counts[:, ::-1].argmax(axis=1))


def _paste(mask: np.ndarray, probability: np.ndarray, rows: _Axis, columns: _Axis, threshold: float) -> None:
    """Sets the pixels of a mask, bool [H0,W0], whose interpolated probability, from [h,w], exceeds the threshold."""
    inside = probability > threshold
    if not inside.any():
        return
    # An interpolated value exceeds the threshold only if one of its sources does.
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
    """First and one past the last pixel that depend on the sources from inside[0] to inside[-1]."""
    start = int(np.searchsorted(axis.end, inside[0], side="right"))
    return start, max(start, int(np.searchsorted(axis.first, inside[-1], side="right")))
