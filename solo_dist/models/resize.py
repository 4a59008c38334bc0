"""Exact bilinear resizing as two small matrix products, and the coordinate channels of SOLO.

The two-matmul form has half-pixel centres and no antialiasing, as the official code (docs/numerics.md, quirk 8), is
differentiable in every precision and compiles; TensorFlow's own resize returns a float32 gradient for bfloat16 inputs
under XLA, which then fails.
"""

import numpy as np
import tensorflow as tf

from solo_dist.masks.bilinear import bilinear_matrix


def resize_bilinear(x: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes bilinearly with half-pixel centres and without antialiasing.

    Args:
      x: floating, [B, H, W, C] with static H, W, C.
      size: target height and width.

    Returns:
      [B, size[0], size[1], C] in the type of x.
    """
    height, width = x.shape[1], x.shape[2]
    if (height, width) == tuple(size):
        return x
    if (height, width) == (2 * size[0], 2 * size[1]):
        # Half-pixel sampling at half the size reads the middle of four pixels: exactly their mean.
        return tf.nn.avg_pool2d(x, 2, 2, "VALID")
    return _resize_columns(_resize_rows(x, size[0]), size[1])


def resize_planes(planes: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """`resize_bilinear` of single-channel maps: floating [n, H, W] with static H, W -> [n, size[0], size[1]]."""
    height, width = planes.shape[1:]
    rows = tf.constant(bilinear_matrix(height, size[0]), planes.dtype)
    columns = tf.constant(bilinear_matrix(width, size[1]), planes.dtype)
    return tf.matmul(rows, tf.matmul(planes, columns, transpose_b=True))


def _resize_rows(x: tf.Tensor, target: int) -> tf.Tensor:
    """[B, H, W, C] -> [B, target, W, C] as one [target, H] x [H, W*C] product an image."""
    height, width, channels = x.shape[1:]
    if height == target:
        return x
    matrix = tf.constant(bilinear_matrix(height, target), x.dtype)
    rows = tf.matmul(matrix, tf.reshape(x, [-1, height, width * channels]))
    return tf.reshape(rows, [-1, target, width, channels])


def _resize_columns(x: tf.Tensor, target: int) -> tf.Tensor:
    """[B, H, W, C] -> [B, H, target, C] as one [target, W] x [W, C] product a row."""
    if x.shape[2] == target:
        return x
    return tf.matmul(tf.constant(bilinear_matrix(x.shape[2], target), x.dtype), x)


def upsample_nearest_2x(x: tf.Tensor) -> tf.Tensor:
    """Doubles height and width by repetition: [B, H, W, C] -> [B, 2H, 2W, C]."""
    height, width, channels = x.shape[1:]
    wide = tf.reshape(tf.concat([x, x], axis=3), [-1, height, 2 * width * channels])
    return tf.reshape(tf.concat([wide, wide], axis=2), [-1, 2 * height, 2 * width, channels])


def append_coordinates(x: tf.Tensor, axes: str = "xy") -> tf.Tensor:
    """Appends channels of coordinates, each linear from -1 at the first to 1 at the last pixel (quirks 8 and 21).

    Args:
      x: [B, H, W, C].
      axes: the coordinates: xy, x or y.

    Returns:
      [B, H, W, C + len(axes)].
    """
    height, width = x.shape[1], x.shape[2]
    columns, rows = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    planes = {"x": columns, "y": rows}
    grid = tf.constant(np.stack([planes[axis] for axis in axes], axis=-1)[None], x.dtype)
    return tf.concat([x, tf.broadcast_to(grid, [tf.shape(x)[0], height, width, len(axes)])], axis=-1)
