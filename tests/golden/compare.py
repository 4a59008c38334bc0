"""The golden arrays in our layout, and how near a result comes to them."""

import numpy as np


def unpack(packed, shape):
    """Masks: [n, bytes] -> bool [n, *shape]."""
    return np.unpackbits(packed, axis=1)[:, : shape[0] * shape[1]].reshape(-1, *shape).astype(bool)


def flatten_levels(arrays, name):
    """Official per-level NCHW arrays -> [B,N,C], levels in order, cells row-major."""
    parts = [arrays[f"{name}_{level}"] for level in range(5)]
    return np.concatenate([p.transpose(0, 2, 3, 1).reshape(p.shape[0], -1, p.shape[1]) for p in parts], axis=1)


def relative(value, expected) -> float:
    """Norm of the difference relative to the norm of what is expected."""
    return np.linalg.norm(np.asarray(value, np.float64) - expected) / np.linalg.norm(expected)


def assert_close(actual, expected) -> None:
    """Within 1e-4 of the largest value."""
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
