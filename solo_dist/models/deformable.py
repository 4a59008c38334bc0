"""Deformable convolution, versions 1 and 2, from gathers and matrix products: any device, any precision, XLA.

Sources: Deformable Convolutional Networks (Dai et al. 2017), its version 2 (Zhu et al. 2019), and the layout of offsets
of torchvision and of the official code (docs/numerics.md, quirks 27 and 28).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.models.grouped import grouped_product, grouped_product_gradient, split_groups

LOOP = "deformable_conv2d"
"""Name of the loop over the taps of a forward pass, in graphs."""


def deformable_conv2d(
    x: tf.Tensor,
    offsets: tf.Tensor,
    modulation: tf.Tensor | None,
    kernel: tf.Tensor,
    strides: int = 1,
    groups: int = 1,
) -> tf.Tensor:
    """A convolution whose taps read the input at positions of their own, bilinearly, with zeros around the image.

    The taps take turns, in the backward pass too, which reads again what a tap read. So the step holds the values of
    one tap at a time, not of nine, and keeps only the arguments.

    Args:
      x: [B,H,W,C].
      offsets: [B,h,w,2k] pixels, for the k taps of the kernel, row-major: dy and dx of each (quirk 27).
      modulation: [B,h,w,k], factors of what the taps read (version 2), or None (version 1).
      kernel: [side,side,C/groups,F] in the type of x, side odd.
      strides: step in both directions; the padding is symmetric.
      groups: the channels of each group are convolved apart; all groups read at the same positions.

    Returns:
      [B,h,w,F] in the type of x.
    """
    side, filters = kernel.shape[0], kernel.shape[3]
    height, width, taps = *offsets.shape[1:3], side * side
    positions = tf.reshape(tf.cast(offsets, tf.float32), [-1, height, width, taps, 2])
    positions += _regular_positions(height, width, side, strides)
    if modulation is None:
        modulation = tf.ones_like(positions[..., 0])
    placement = tf.concat([positions, tf.cast(modulation, tf.float32)[..., None]], axis=-1)
    placement = tf.transpose(tf.reshape(placement, [-1, taps, 3]), [1, 2, 0])
    return tf.reshape(_sum_of_taps(x, placement, split_groups(kernel, groups)), [-1, height, width, filters])


def _regular_positions(height: int, width: int, side: int, strides: int) -> np.ndarray:
    """Where the taps of an ordinary convolution read: float32 [h,w,k,2]."""
    pixels = np.stack(np.mgrid[:height, :width], axis=-1) * strides - side // 2
    taps = np.stack(np.mgrid[:side, :side], axis=-1).reshape(-1, 2)
    return (pixels[:, :, None] + taps).astype(np.float32)


@tf.custom_gradient
def _sum_of_taps(
    x: tf.Tensor, placement: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
    """The convolution of n = B*h*w output pixels, and its gradient.

    Args:
      x: [B,H,W,C].
      placement: float32 [k,3,n]: y, x and factor of each tap and output pixel.
      weights: [k,groups,C/groups,F/groups].

    Returns:
      [n,F], and the function from its gradient to those of the arguments.
    """
    _, height, width, channels = x.shape
    taps, groups, _, filters = weights.shape
    pixels = tf.shape(placement)[2]
    flat = tf.reshape(x, [-1, channels])
    # The first pixel, in the flat batch, of the image that an output pixel belongs to.
    per_image = tf.maximum(pixels // tf.maximum(tf.shape(x)[0], 1), 1)
    first = tf.range(pixels) // per_image * (height * width)

    def read(tap: tf.Tensor) -> tuple[_Neighbours, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Neighbours, their values [4,n,C], the factor [n] and the sampled values times the factor, [n,C]."""
        y_position, x_position, factor = tf.unstack(placement[tap])
        near = _neighbours(y_position, x_position, first, (height, width))
        values = tf.cast(tf.gather(flat, near.pixels), tf.float32)
        shares = factor * near.shares
        sampled = tf.add_n([shares[corner][:, None] * values[corner] for corner in range(4)])
        return near, values, factor, tf.cast(sampled, x.dtype)

    def add_tap(tap: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        *_, sampled = read(tap)
        return tap + 1, total + tf.cast(grouped_product(sampled, weights[tap]), tf.float32)

    def loop(body: Callable[..., Any], start: Sequence[Any], name: str | None = None) -> Any:
        once = {"parallel_iterations": 1, "maximum_iterations": taps}
        return tf.while_loop(lambda tap, *_: tap < taps, body, (0, *start), name=name, **once)[1:]

    (total,) = loop(add_tap, [tf.zeros([pixels, groups * filters])], LOOP)

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def add_gradients(tap: tf.Tensor, dx: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, ...]:
            near, values, factor, sampled = read(tap)
            d_sampled = tf.cast(grouped_product(dy, tf.transpose(weights[tap], [0, 2, 1])), tf.float32)
            by_corner = tf.reduce_sum(values * d_sampled, axis=2)
            derivatives = (factor * near.y_slopes, factor * near.x_slopes, near.shares)
            d_tap = (
                tf.stack([tf.reduce_sum(derivative * by_corner, axis=0) for derivative in derivatives]),
                grouped_product_gradient(sampled, dy, groups),
            )
            d_values = (factor * near.shares)[..., None] * d_sampled
            dx = tf.tensor_scatter_nd_add(dx, near.pixels[..., None], d_values)
            pairs = zip(others, d_tap, strict=True)
            return tap + 1, dx, *(tf.tensor_scatter_nd_update(all_taps, [[tap]], d[None]) for all_taps, d in pairs)

        start = [tf.zeros_like(flat, tf.float32), tf.zeros_like(placement), tf.zeros_like(weights)]
        dx, d_placement, d_weights = loop(add_gradients, start)
        return tf.cast(tf.reshape(dx, tf.shape(x)), x.dtype), d_placement, d_weights

    return tf.cast(total, x.dtype), gradient


class _Neighbours(NamedTuple):
    """The four pixels around each of n positions."""

    pixels: tf.Tensor
    """int32 [4,n], in the flat batch; any pixel for a neighbour outside the image."""
    shares: tf.Tensor
    """float32 [4,n]: the value at the position is the sum of shares times values. Outside the image they are 0."""
    y_slopes: tf.Tensor
    """float32 [4,n]: derivatives of the shares by the position."""
    x_slopes: tf.Tensor


def _neighbours(y: tf.Tensor, x: tf.Tensor, first: tf.Tensor, size: tuple[int, int]) -> _Neighbours:
    rows, y_shares, y_slopes = (part[:, None] for part in _along_axis(y, size[0]))
    columns, x_shares, x_slopes = (part[None] for part in _along_axis(x, size[1]))
    pixels = first + rows * size[1] + columns
    parts = (pixels, y_shares * x_shares, y_slopes * x_shares, y_shares * x_slopes)
    return _Neighbours(*(tf.reshape(part, [4, -1]) for part in parts))


def _along_axis(position: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Index, share and slope of the two whole positions around each position, [2,n] each.

    At a whole position inside, the slope is that to its right. At -1 itself it is 0 (quirk 28), hence the strict
    comparison. A position that is not a number gives shares that are none either, so that the loss shows it.
    """
    before = tf.floor(position)
    share = position - before
    one_inside = tf.cast((position >= 0) & (position < size), tf.float32)
    other_inside = tf.cast((position > -1) & (position < size - 1), tf.float32)
    index = tf.cast(tf.clip_by_value(before, -1.0, float(size)), tf.int32)
    indices = tf.clip_by_value(tf.stack([index, index + 1]), 0, size - 1)
    shares = tf.stack([(1 - share) * one_inside, share * other_inside])
    return indices, shares, tf.stack([-one_inside, other_inside])
