"""Augmentation: random numbers for an image, and the changes of its geometry and colours that they give.

Every random number of an image comes from one stateless draw of (seed, position), and those of the images that share
its canvas from one each of (seed, position, part). Colour changes are composed into one affine map of RGB. Legend of
shapes: `solo_dist.config`.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.config import MASK_STRIDE, AugmentConfig
from solo_dist.data.geometry import Placement, fit_factor, reduction, scaled_size, to_uint8, whole_image

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""

_RGB_TO_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float64)


class Draws(NamedTuple):
    """The random numbers of an image, float32 scalars in [0, 1)."""

    flip: tf.Tensor
    scale: tf.Tensor
    short_side: tf.Tensor
    top: tf.Tensor
    bottom: tf.Tensor
    left: tf.Tensor
    right: tf.Tensor
    place_y: tf.Tensor
    place_x: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor
    turn: tf.Tensor
    mosaic: tf.Tensor
    center_y: tf.Tensor
    center_x: tf.Tensor
    paste: tf.Tensor
    partner: tf.Tensor


_PART = 1 << 41
"""Added to a position, once for each part; the subset of too many instances is drawn at 1 << 40."""
_CHOICE = 1 << 40
"""Added besides, for the instances that are pasted."""


def draw(seed: int, position: tf.Tensor, part: tf.Tensor | int = 0) -> Draws:
    """All random numbers of an image; the same on any machine.

    Args:
      seed: of the run.
      position: in the training order, int64 scalar.
      part: 0 for the image at the position, from 1 on for others that share its canvas; int32 scalar.
    """
    numbers = tf.random.stateless_uniform([len(Draws._fields)], _seed(seed, position, part), alg="philox")
    return Draws(*tf.unstack(numbers))


def _seed(seed: int, position: tf.Tensor, part: tf.Tensor | int) -> tf.Tensor:
    return tf.stack([tf.constant(seed, tf.int64), position + tf.cast(part, tf.int64) * _PART])


# ---- Geometry


def draw_flip(draws: Draws, augment: AugmentConfig) -> tf.Tensor:
    """bool scalar."""
    return draws.flip < 0.5 if augment.flip else tf.constant(False)


def draw_turns(draws: Draws) -> tf.Tensor:
    """Quarter turns, int32 scalar 0..3."""
    return tf.cast(tf.floor(draws.turn * 4.0), tf.int32)


def draw_placement(draws: Draws, size: tf.Tensor, canvas: tuple[int, int], augment: AugmentConfig) -> Placement:
    """Random crop, scale and flip of an image of `size`, int32 [2] height, width.

    The scale is that of the whole image: drawn relative to the image fitted into the canvas, or such that the short
    side has one of data.augment.short_sides and the image fits into the canvas. If the image is larger than the
    canvas, a random window of it is taken. The window begins and ends at multiples of the `reduction`, or at the end
    of the image.
    """
    if not augment.changes_geometry:
        return whole_image(size, canvas, draw_flip(draws, augment))
    return draw_part(draws, size, canvas, augment, draw_scale(draws, augment.scale), tf.constant(canvas))


def draw_part(
    draws: Draws,
    size: tf.Tensor,
    canvas: tuple[int, int],
    augment: AugmentConfig,
    scale: tf.Tensor,
    room: tf.Tensor,
) -> Placement:
    """`draw_placement` of an image that gets only a part of the canvas.

    Args:
      draws: of this image.
      size: int32 [2] height, width of the image.
      canvas: H, W, which the scale refers to.
      augment: crop, flip and short sides.
      scale: of the image, float64 scalar; 1: as large as fits into the canvas.
      room: int32 [2] height, width of the part of the canvas, multiples of 4.
    """
    factor = scale * _draw_fit(draws, size, canvas, augment.short_sides)
    begin, end = _draw_crop(draws, size, augment.crop)
    # An image that fits exactly must not lose its last row to rounding.
    largest = tf.cast(tf.floor(tf.cast(room, tf.float64) / factor + 1e-6), tf.int32)
    sides = tf.minimum(end - begin, tf.maximum(largest, 1))
    spare = tf.cast(end - begin - sides + 1, tf.float32)
    begin += tf.cast(tf.floor(tf.stack([draws.place_y, draws.place_x]) * spare), tf.int32)
    begin, sides = _at_multiples(begin, begin + sides, size, reduction(size, canvas, augment.largest_scale))
    window = tf.concat([begin, sides], axis=0)
    return Placement(window, scaled_size(sides, factor, room), factor, draw_flip(draws, augment))


def draw_center(draws: Draws, canvas: tuple[int, int]) -> tf.Tensor:
    """The point at which the four images of a mosaic meet: int32 [2] y, x.

    It is in the middle half of the canvas, at multiples of 4.
    """
    choices = tf.constant(canvas, tf.float32) / (2 * MASK_STRIDE) + 1.0
    steps = tf.cast(tf.floor(tf.stack([draws.center_y, draws.center_x]) * choices), tf.int32)
    return tf.constant(canvas) // 4 + MASK_STRIDE * steps


def draw_corner(draws: Draws, size: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
    """The first row and column, int32 [2], of an image of `size` somewhere in `room`, both int32 [2] height, width."""
    spare = tf.cast(room - size + 1, tf.float32)
    return tf.cast(tf.floor(tf.stack([draws.center_y, draws.center_x]) * spare), tf.int32)


def draw_pasted(seed: int, position: tf.Tensor, part: tf.Tensor | int, num_instances: tf.Tensor) -> tf.Tensor:
    """Which instances of a part are pasted, bool [m]: each with probability 1/2, and always at least one."""
    numbers = tf.random.stateless_uniform([num_instances], _seed(seed, position + _CHOICE, part), alg="philox")
    return (numbers < 0.5) | (numbers == tf.reduce_min(numbers))


def draw_scale(draws: Draws, bounds: tuple[float, float]) -> tf.Tensor:
    """The scale of an image relative to the largest that fits, float64 scalar."""
    low, high = bounds
    return tf.cast(low + (high - low) * draws.scale, tf.float64)


def _draw_fit(draws: Draws, size: tf.Tensor, canvas: tuple[int, int], short_sides: tuple[int, ...]) -> tf.Tensor:
    factor = fit_factor(size, canvas)
    if short_sides:
        chosen = tf.gather(tf.constant(short_sides, tf.float64), tf.cast(draws.short_side * len(short_sides), tf.int32))
        factor = tf.minimum(factor, chosen / tf.cast(tf.reduce_min(size), tf.float64))
    return factor


def _draw_crop(draws: Draws, size: tf.Tensor, largest_share: float) -> tuple[tf.Tensor, tf.Tensor]:
    """First and one-past-last pixels that remain, int32 [2] each as y, x."""
    sides = tf.cast(size, tf.float32)
    begin = tf.floor(tf.stack([draws.top, draws.left]) * largest_share * sides)
    cut = tf.floor(tf.stack([draws.bottom, draws.right]) * largest_share * sides)
    return tf.cast(begin, tf.int32), size - tf.cast(cut, tf.int32)


def _at_multiples(begin: tf.Tensor, end: tf.Tensor, size: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Begin and sides, int32 [2] each, of the smaller window at multiples of `step` (or the end of the image)."""
    end = tf.where(end == size, end, tf.maximum(end // step * step, tf.minimum(step, size)))
    begin = tf.minimum(-(-begin // step) * step, (end - 1) // step * step)
    return begin, end - begin


# ---- Colour


def changes_colour(augment: AugmentConfig) -> bool:
    """Whether any of the four colour changes is on."""
    return any((augment.brightness, augment.contrast, augment.saturation, augment.hue))


def change_colours(image: tf.Tensor, draws: Draws, augment: AugmentConfig) -> tf.Tensor:
    """Brightness, contrast about the mean grey, saturation and hue of [h, w, 3], 0..255 -> uint8 [h, w, 3].

    The four are affine in RGB and grey stays grey under saturation and hue, so together they are
    c * Hue * Saturation * pixel + (1 - c) * mean grey + b. The hue is turned in the YIQ plane, not in
    HSV.
    """
    contrast = _factor(draws.contrast, augment.contrast)
    offset = 255.0 * _signed(draws.brightness, augment.brightness)
    if image.dtype == tf.uint8 and not (augment.contrast or augment.saturation or augment.hue):
        return _shift(image, tf.cast(tf.floor(offset + 0.5), tf.int32))
    pixels = tf.cast(image, tf.float32)
    if augment.contrast:
        grey = tf.tensordot(tf.reduce_mean(pixels, axis=[0, 1]), LUMA, 1)
        offset += (1.0 - contrast) * grey
    if augment.saturation or augment.hue:
        pixels = _matrix_product(pixels, contrast * _colour_matrix(draws, augment))
    elif augment.contrast:
        pixels *= contrast
    return to_uint8(pixels + offset)


def _shift(pixels: tf.Tensor, by: tf.Tensor) -> tf.Tensor:
    """uint8 pixels + by, bounded to 0..255; by is an int32 scalar in -255..255. Stays within bytes."""
    low, high = tf.cast(tf.maximum(-by, 0), tf.uint8), tf.cast(255 - tf.maximum(by, 0), tf.uint8)
    # Arithmetic modulo 256, in which a negative shift is a large positive one.
    return tf.minimum(tf.maximum(pixels, low), high) + tf.cast(by % 256, tf.uint8)


def _signed(number: tf.Tensor, bound: float) -> tf.Tensor:
    return (2.0 * number - 1.0) * bound


def _factor(number: tf.Tensor, bound: float) -> tf.Tensor:
    return 1.0 + _signed(number, bound)


def _matrix_product(pixels: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    flat = tf.matmul(tf.reshape(pixels, [-1, 3]), matrix, transpose_b=True)
    return tf.reshape(flat, tf.shape(pixels))


def _colour_matrix(draws: Draws, augment: AugmentConfig) -> tf.Tensor:
    """float32 [3, 3], column vectors of RGB to RGB."""
    saturation = _factor(draws.saturation, augment.saturation)
    angle = 2.0 * math.pi * _signed(draws.hue, augment.hue)
    cos, sin = tf.cos(angle) * saturation, tf.sin(angle) * saturation
    # In YIQ: brightness stays, the colour plane is turned and stretched.
    inner = tf.stack([1.0, 0.0, 0.0, 0.0, cos, -sin, 0.0, sin, cos])
    back = np.linalg.inv(_RGB_TO_YIQ).astype(np.float32)
    return back @ tf.reshape(inner, [3, 3]) @ _RGB_TO_YIQ.astype(np.float32)
