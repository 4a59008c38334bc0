"""Augmentation inside the graph: what is drawn, and what it does to the picture and to its instances.

Every random number of a picture comes from one stateless draw of (seed, position). Geometry is always: cut a window of
whole pixels out of the stored picture, resize it, mirror it. Masks as row runs follow exactly, by integer maps, so that
they agree with the picture whatever is drawn. Colour changes are composed into one affine map of RGB.
Legend of shapes: `solo_dist.config`; m instances of a picture, r runs.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.config import MASK_STRIDE, AugmentConfig
from solo_dist.masks import rle as row_runs
from solo_dist.solo import targets

PADDING = (124, 116, 104)
"""Colour of the canvas beyond the picture: the mean of ImageNet, 0 once normalised, as the official padding."""

REDUCTIONS = (1, 2, 4, 8)
"""Factors by which a JPEG can be shrunk while it is decoded."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""

_RGB_TO_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float64)


class Draws(NamedTuple):
    """The random numbers of a picture, float32 scalars in [0, 1)."""

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


class Geometry(NamedTuple):
    """Cut `window` out of the stored picture, resize it to `size`, then mirror it where `flip`."""

    window: tf.Tensor
    """int32 [4]: first row, first column, height, width in pixels of the stored picture."""
    size: tf.Tensor
    """int32 [2]: height, width on the canvas."""
    flip: tf.Tensor
    """bool scalar."""


def draw(seed: int, position: tf.Tensor) -> Draws:
    """All random numbers of the picture at a position (int64 scalar) of the training order; the same on any machine."""
    numbers = tf.random.stateless_uniform(
        [len(Draws._fields)], seed=tf.stack([tf.constant(seed, tf.int64), position]), alg="philox"
    )
    return Draws(*tf.unstack(numbers))


# ---- Geometry


def fitted_size(size: tf.Tensor, canvas: tuple[int, int], factor: tf.Tensor | None = None) -> tf.Tensor:
    """The size of a picture scaled by `factor`, by default as large as the canvas holds.

    Sides are rounded to multiples of 4, so that masks at 1/4 are exact under a flip within the picture.

    Args:
      size: int32 [2], height, width.
      canvas: H, W, multiples of 32.
      factor: float64 scalar.
    """
    sides = tf.cast(size, tf.float64)
    if factor is None:
        factor = fit_factor(size, canvas)
    rounded = tf.cast(tf.floor(sides * factor / MASK_STRIDE + 0.5), tf.int32) * MASK_STRIDE
    return tf.clip_by_value(rounded, MASK_STRIDE, tf.constant(canvas, tf.int32))


def fit_factor(size: tf.Tensor, canvas: tuple[int, int]) -> tf.Tensor:
    """The largest scale at which a picture of `size`, int32 [2], fits into the canvas; float64 scalar."""
    return tf.reduce_min(tf.constant(canvas, tf.float64) / tf.cast(size, tf.float64))


def reduction(size: tf.Tensor, canvas: tuple[int, int], augment: AugmentConfig | None) -> tf.Tensor:
    """By how much a picture of `size`, int32 [2], may be shrunk on decoding: int32 scalar 1, 2, 4 or 8.

    JPEG decoders shrink by these factors for less than no cost, and well filtered. The largest is taken with which no
    geometry that `augment` can draw (None: the fitted picture) has to enlarge what was decoded.
    """
    largest = max(1.0, augment.scale[1]) if augment else 1.0
    spare = 1.0 / (largest * fit_factor(size, canvas))
    return tf.reduce_max(tf.where(tf.constant(REDUCTIONS, tf.float64) <= spare, REDUCTIONS, 1))


def whole_picture(size: tf.Tensor, canvas: tuple[int, int], flip: tf.Tensor | bool = False) -> Geometry:
    """The geometry of precomputed targets: the picture, int32 [2] height, width, fitted into the canvas."""
    return Geometry(tf.concat([[0, 0], size], axis=0), fitted_size(size, canvas), tf.convert_to_tensor(flip))


def draw_flip(draws: Draws, augment: AugmentConfig) -> tf.Tensor:
    """bool scalar."""
    return draws.flip < 0.5 if augment.flip else tf.constant(False)


def draw_geometry(draws: Draws, size: tf.Tensor, canvas: tuple[int, int], augment: AugmentConfig) -> Geometry:
    """Random crop, scale and flip of a picture of `size`, int32 [2] height, width.

    The scale is that of the whole picture: drawn relative to the fitted one, or such that its short side has one of
    the official lengths and the canvas still holds it. What exceeds the canvas at that scale is cut off, at a random
    place. The window begins and ends at multiples of the `reduction`, or at the end of the picture.
    """
    if not augment.changes_geometry:
        return whole_picture(size, canvas, draw_flip(draws, augment))
    factor = _draw_factor(draws, size, canvas, augment)
    begin, end = _draw_crop(draws, size, augment.crop)
    # A picture that fits exactly must not lose its last row to rounding.
    largest = tf.cast(tf.floor(tf.constant(canvas, tf.float64) / factor + 1e-6), tf.int32)
    sides = tf.minimum(end - begin, tf.maximum(largest, 1))
    room = tf.cast(end - begin - sides + 1, tf.float32)
    begin += tf.cast(tf.floor(tf.stack([draws.place_y, draws.place_x]) * room), tf.int32)
    begin, sides = _at_multiples(begin, begin + sides, size, reduction(size, canvas, augment))
    return Geometry(tf.concat([begin, sides], axis=0), fitted_size(sides, canvas, factor), draw_flip(draws, augment))


def _draw_factor(draws: Draws, size: tf.Tensor, canvas: tuple[int, int], augment: AugmentConfig) -> tf.Tensor:
    factor = fit_factor(size, canvas)
    if augment.short_sides:
        sides = tf.constant(augment.short_sides, tf.float64)
        chosen = tf.gather(sides, tf.cast(draws.short_side * len(augment.short_sides), tf.int32))
        factor = tf.minimum(factor, chosen / tf.cast(tf.reduce_min(size), tf.float64))
    low, high = augment.scale
    return factor * tf.cast(low + (high - low) * draws.scale, tf.float64)


def _draw_crop(draws: Draws, size: tf.Tensor, largest_share: float) -> tuple[tf.Tensor, tf.Tensor]:
    """First and one-past-last pixels that remain, int32 [2] each as y, x."""
    sides = tf.cast(size, tf.float32)
    begin = tf.floor(tf.stack([draws.top, draws.left]) * largest_share * sides)
    cut = tf.floor(tf.stack([draws.bottom, draws.right]) * largest_share * sides)
    return tf.cast(begin, tf.int32), size - tf.cast(cut, tf.int32)


def _at_multiples(begin: tf.Tensor, end: tf.Tensor, size: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Begin and sides, int32 [2] each, of the smaller window at multiples of `step` (or the end of the picture)."""
    end = tf.where(end == size, end, tf.maximum(end // step * step, tf.minimum(step, size)))
    begin = tf.minimum(-(-begin // step) * step, (end - 1) // step * step)
    return begin, end - begin


def move_image(image: tf.Tensor, geometry: Geometry, reduced_by: tf.Tensor | int = 1) -> tf.Tensor:
    """uint8 [height, width, 3], decoded with a `reduction` -> float32 [*geometry.size, 3].

    Half-pixel bilinear without antialiasing, as the official pipeline. Only the window is resized.
    """
    y, x, height, width = tf.unstack(-(-geometry.window // reduced_by), num=4)
    image = image[y : y + height, x : x + width]
    resized = tf.raw_ops.ResizeBilinear(images=image[None], size=geometry.size, half_pixel_centers=True)[0]
    return flip_image(resized, geometry.flip)


def flip_image(image: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """[h, w, c] of any type, mirrored left and right where `flip`."""
    return tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)


def move_instances(
    runs: row_runs.Runs, boxes: tf.Tensor, size: tf.Tensor, geometry: Geometry
) -> tuple[row_runs.Runs, tf.Tensor]:
    """Masks and boxes on the canvas. Instances keep their index: one that was cut off entirely has no run left.

    Boxes of whole instances are moved, as the official pipeline does; those of instances that lost pixels to the
    window are drawn anew around what remains of the mask. The box of an instance without a pixel means nothing.

    Args:
      runs: masks of m instances in pixels of the stored picture.
      boxes: float32 [m, 4] x1, y1, x2, y2 there.
      size: int32 [2], height, width of the stored picture.
      geometry: what to do.
    """
    y, x, height, width = tf.unstack(geometry.window, num=4)
    rows = row_runs.nearest_source(height, geometry.size[0]) + y
    columns = row_runs.nearest_source(width, geometry.size[1]) + x
    moved = row_runs.resample(runs, rows, columns, size)
    num_instances = tf.shape(boxes)[0]
    corner = tf.cast(tf.stack([x, y, x, y]), tf.float32)
    whole = targets.scale_boxes(boxes - corner, geometry.window[2:], geometry.size)
    boxes = tf.where(
        _inside(row_runs.tight_boxes(runs, num_instances), geometry.window)[:, None],
        whole,
        row_runs.tight_boxes(moved, num_instances),
    )

    def mirrored() -> tuple[row_runs.Runs, tf.Tensor]:
        return row_runs.flip(moved, geometry.size[1]), targets.flip_boxes(boxes, geometry.size[1])

    return tf.cond(geometry.flip, mirrored, lambda: (moved, boxes))


def _inside(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Which boxes, float32 [m, 4] of inclusive pixels, lie within the window; bool [m]."""
    y, x, height, width = tf.unstack(tf.cast(window, tf.float32), num=4)
    low, high = boxes[:, :2], boxes[:, 2:]
    return tf.reduce_all((low >= tf.stack([x, y])) & (high < tf.stack([x + width, y + height])), axis=1)


def pad_to_canvas(image: tf.Tensor, canvas: tuple[int, int]) -> tf.Tensor:
    """uint8 [h, w, 3] -> [H, W, 3], PADDING beyond the picture, which lies top left."""
    height, width = tf.unstack(tf.shape(image)[:2])
    # Pieces of a ready canvas: copies of rows, where arithmetic with a colour would go pixel by pixel.
    empty = tf.constant(np.full((*canvas, 3), PADDING, np.uint8))
    image = tf.concat([image, empty[:height, width:]], axis=1)
    return tf.ensure_shape(tf.concat([image, empty[height:]], axis=0), [*canvas, 3])


# ---- Colour


def changes_colour(augment: AugmentConfig) -> bool:
    """Whether any of the four colour changes is on."""
    return any((augment.brightness, augment.contrast, augment.saturation, augment.hue))


def change_colours(image: tf.Tensor, draws: Draws, augment: AugmentConfig) -> tf.Tensor:
    """Brightness, contrast about the mean grey, saturation and hue of [h, w, 3], 0..255 -> uint8 [h, w, 3].

    The four are affine in RGB and grey stays grey under saturation and hue, so together they are
    c * Hue * Saturation * pixel + (1 - c) * mean grey + b. The hue is turned in the YIQ plane: no trip through HSV.
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


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Rounded and bounded to 0..255."""
    return pixels if pixels.dtype == tf.uint8 else tf.cast(tf.clip_by_value(pixels + 0.5, 0.0, 255.0), tf.uint8)


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
