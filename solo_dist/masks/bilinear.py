"""Bilinear interpolation along one axis as a matrix: half-pixel centres, no antialiasing (quirk 8)."""

import functools

import numpy as np


@functools.lru_cache(maxsize=256)
def bilinear_matrix(source: int, target: int) -> np.ndarray:
    """Interpolation weights, float32 [target, source]; each row has two neighbouring weights."""
    # The official numbers come from a float32 scale and a fused multiply-add, that is, a single rounding after it.
    scale = np.float64(np.float32(source) / np.float32(target))
    position = np.float32(scale * (np.arange(target) + 0.5) - 0.5).clip(min=0)
    low = np.minimum(position.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    share: np.ndarray = position - low.astype(np.float32)
    matrix = np.zeros([target, source], np.float32)
    rows = np.arange(target)
    np.add.at(matrix, (rows, low), 1 - share)
    np.add.at(matrix, (rows, high), share)
    return matrix
