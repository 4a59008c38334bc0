"""Deformable convolution, versions 1 and 2, from gathers and matrix products: any device, any precision, XLA.

Sources: Deformable Convolutional Networks (Dai et al. 2017), its version 2 (Zhu et al. 2019), and the layout of offsets
of torchvision and of the official code (docs/numerics.md, quirks 27 and 28).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.models.grouped import grouped_product, grouped_product_gradient, split_groups
from solo_dist.models.recompute import plus_zero

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
      strides: stride in both directions; the padding is symmetric.
      groups: the channels of each group are convolved apart; all groups read at the same positions.

    Returns:
      [B,h,w,F] in the type of x.
    """
    side, filters = kernel.shape[0], kernel.shape[3]
    _, height, width, _ = offsets.shape
    taps = side * side
    positions = tf.reshape(tf.cast(offsets, tf.float32), [-1, height, width, taps, 2])
    positions += _regular_positions(height, width, side, strides)
    if modulation is None:
        modulation = tf.ones_like(positions[..., 0])
    placement = tf.concat([positions, tf.cast(modulation, tf.float32)[..., None]], axis=-1)
    placement = tf.transpose(tf.reshape(placement, [-1, taps, 3]), [1, 2, 0])
    return tf.reshape(_sum_of_taps(x, placement, split_groups(kernel, groups)), [-1, height, width, filters])


def _regular_positions(height: int, width: int, side: int, strides: int) -> np.ndarray:
    """Where the taps of an ordinary convolution read: float32 [h,w,k,2]."""
    pixels = np.moveaxis(np.indices((height, width)), 0, -1) * strides - side // 2
    taps = np.moveaxis(np.indices((side, side)), 0, -1).reshape(-1, 2)
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
    taps, groups, _, filters = weights.shape
    flat = tf.reshape(x, [-1, x.shape[3]])

    def loop(body: Callable[..., Any], start: Sequence[Any], name: str | None = None) -> Any:
        once = {"parallel_iterations": 1, "maximum_iterations": taps}
        return tf.while_loop(lambda tap, *_: tap < taps, body, (0, *start), name=name, **once)[1:]

    def forward() -> tf.Tensor:
        near, factors = _neighbours(placement, x), placement[:, 2, None]
        shares = factors * near.shares

        def add_tap(tap: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            sampled = _sample(_values(flat, near.pixels[tap]), shares[tap], x.dtype)
            return tap + 1, total + tf.cast(grouped_product(sampled, weights[tap]), tf.float32)

        (total,) = loop(add_tap, [tf.zeros([tf.shape(placement)[2], groups * filters])], LOOP)
        return tf.cast(total, x.dtype)

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # Computed from dy, so that no optimizer of the graph keeps the neighbours of the forward pass until now.
        (later,) = plus_zero([placement], [dy])
        near, factors = _neighbours(later, x), later[:, 2, None]
        shares = factors * near.shares

        def add_gradients(
            tap: tf.Tensor, dx: tf.Tensor, by_corner: tf.Tensor, d_weights: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            values = _values(flat, near.pixels[tap])
            sampled = _sample(values, shares[tap], x.dtype)
            d_sampled = tf.cast(grouped_product(dy, tf.transpose(weights[tap], [0, 2, 1])), tf.float32)
            return (
                tap + 1,
                tf.tensor_scatter_nd_add(dx, near.pixels[tap][..., None], shares[tap][..., None] * d_sampled),
                _with(by_corner, tap, tf.reduce_sum(values * d_sampled, axis=2)),
                _with(d_weights, tap, grouped_product_gradient(sampled, dy, groups)),
            )

        start = [tf.zeros_like(flat, tf.float32), tf.zeros_like(shares), tf.zeros_like(weights)]
        dx, by_corner, d_weights = loop(add_gradients, start)
        derivatives = (factors * near.y_slopes, factors * near.x_slopes, near.shares)
        d_placement = tf.stack([tf.reduce_sum(derivative * by_corner, axis=1) for derivative in derivatives], axis=1)
        return tf.cast(tf.reshape(dx, tf.shape(x)), x.dtype), d_placement, d_weights

    return forward(), gradient


def _values(flat: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Pixels [4,n] of a flat batch [B*H*W,C], as float32 [4,n,C]."""
    return tf.cast(tf.gather(flat, pixels), tf.float32)


def _sample(values: tf.Tensor, shares: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Sum of float32 [4,n,C] weighted by [4,n] -> [n,C]."""
    return tf.cast(tf.reduce_sum(shares[..., None] * values, axis=0), dtype)


def _with(tensor: tf.Tensor, index: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    return tf.tensor_scatter_nd_update(tensor, [[index]], part[None])


class _Neighbours(NamedTuple):
    """The four pixels around each of k*n positions."""

    pixels: tf.Tensor
    """int32 [k,4,n], in the flat batch; any pixel for a neighbour outside the image."""
    shares: tf.Tensor
    """float32 [k,4,n]: the value at the position is the sum of shares times values. Outside the image they are 0."""
    y_slopes: tf.Tensor
    """float32 [k,4,n]: derivatives of the shares by the position."""
    x_slopes: tf.Tensor


def _neighbours(placement: tf.Tensor, x: tf.Tensor) -> _Neighbours:
    """The pixels around positions [k,3,n], y and x first, in the images x [B,H,W,C]."""
    _, height, width, _ = x.shape
    batch, count = tf.shape(x)[0], tf.shape(placement)[2]
    first_pixels = tf.range(batch)[:, None] * (height * width)
    first = tf.reshape(tf.broadcast_to(first_pixels, [batch, count // tf.maximum(batch, 1)]), [-1])
    rows, y_shares, y_slopes = (part[:, :, None] for part in _along_axis(placement[:, 0], height))
    columns, x_shares, x_slopes = (part[:, None] for part in _along_axis(placement[:, 1], width))
    pixels = first + rows * width + columns
    parts = (pixels, y_shares * x_shares, y_slopes * x_shares, y_shares * x_slopes)
    return _Neighbours(*(tf.reshape(part, [placement.shape[0], 4, -1]) for part in parts))


def _along_axis(position: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Index, share and slope of the two whole positions around each position: [k,n] -> [k,2,n] each.

    At a whole position inside, the slope is that to its right. At -1 itself it is 0 (quirk 28), hence the strict
    comparison. A position that is not a number gives shares that are none either, so that the loss shows it.
    """
    before = tf.floor(position)
    share = position - before
    one_inside = tf.cast((position >= 0) & (position < size), tf.float32)
    other_inside = tf.cast((position > -1) & (position < size - 1), tf.float32)
    index = tf.cast(tf.clip_by_value(before, -1.0, float(size)), tf.int32)
    indices = tf.clip_by_value(tf.stack([index, index + 1], axis=1), 0, size - 1)
    shares = tf.stack([(1 - share) * one_inside, share * other_inside], axis=1)
    return indices, shares, tf.stack([-one_inside, other_inside], axis=1)
