"""How an image of any size becomes a canvas: a window of whole pixels is cut out, resized, mirrored, padded.

Training, evaluation, prediction and export all use these functions. Masks as row runs follow the image exactly, by
integer maps. Legend of shapes: `solo_dist.config`; m instances of an image, r runs.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.config import MASK_STRIDE, AugmentConfig
from solo_dist.masks import rle as row_runs
from solo_dist.solo import targets

PADDING = (124, 116, 104)
"""Colour of the canvas beyond the image: the mean of ImageNet, 0 once normalised, as the official padding."""

REDUCTIONS = (1, 2, 4, 8)
"""Factors by which a JPEG can be shrunk while it is decoded."""


class Placement(NamedTuple):
    """Cut `window` out of the stored picture, resize it to `size`, then mirror it where `flip`."""

    window: tf.Tensor
    """int32 [4]: first row, first column, height, width in pixels of the stored picture."""
    size: tf.Tensor
    """int32 [2]: height, width on the canvas."""
    flip: tf.Tensor
    """bool scalar."""


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


def whole_image(size: tf.Tensor, canvas: tuple[int, int], flip: tf.Tensor | bool = False) -> Placement:
    """The geometry of precomputed targets: the picture, int32 [2] height, width, fitted into the canvas."""
    return Placement(tf.concat([[0, 0], size], axis=0), fitted_size(size, canvas), tf.convert_to_tensor(flip))


def move_image(image: tf.Tensor, placement: Placement, reduced_by: tf.Tensor | int = 1) -> tf.Tensor:
    """uint8 [height, width, 3], decoded with a `reduction` -> float32 [*placement.size, 3].

    Half-pixel bilinear without antialiasing, as the official pipeline. Only the window is resized.
    """
    y, x, height, width = tf.unstack(-(-placement.window // reduced_by), num=4)
    image = image[y : y + height, x : x + width]
    resized = tf.raw_ops.ResizeBilinear(images=image[None], size=placement.size, half_pixel_centers=True)[0]
    return flip_image(resized, placement.flip)


def flip_image(image: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """[h, w, c] of any type, mirrored left and right where `flip`."""
    return tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)


def move_instances(
    runs: row_runs.Runs, boxes: tf.Tensor, size: tf.Tensor, placement: Placement
) -> tuple[row_runs.Runs, tf.Tensor]:
    """Masks and boxes on the canvas. Instances keep their index: one that was cut off entirely has no run left.

    Boxes of whole instances are moved, as the official pipeline does; those of instances that lost pixels to the
    window are drawn anew around what remains of the mask. The box of an instance without a pixel means nothing.

    Args:
      runs: masks of m instances in pixels of the stored picture.
      boxes: float32 [m, 4] x1, y1, x2, y2 there.
      size: int32 [2], height, width of the stored picture.
      placement: what to do.
    """
    y, x, height, width = tf.unstack(placement.window, num=4)
    rows = row_runs.nearest_source(height, placement.size[0]) + y
    columns = row_runs.nearest_source(width, placement.size[1]) + x
    moved = row_runs.resample(runs, rows, columns, size)
    num_instances = tf.shape(boxes)[0]
    corner = tf.cast(tf.stack([x, y, x, y]), tf.float32)
    whole = targets.scale_boxes(boxes - corner, placement.window[2:], placement.size)
    boxes = tf.where(
        _inside(row_runs.tight_boxes(runs, num_instances), placement.window)[:, None],
        whole,
        row_runs.tight_boxes(moved, num_instances),
    )

    def mirrored() -> tuple[row_runs.Runs, tf.Tensor]:
        return row_runs.flip(moved, placement.size[1]), targets.flip_boxes(boxes, placement.size[1])

    return tf.cond(placement.flip, mirrored, lambda: (moved, boxes))


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


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Rounded and bounded to 0..255."""
    return pixels if pixels.dtype == tf.uint8 else tf.cast(tf.clip_by_value(pixels + 0.5, 0.0, 255.0), tf.uint8)
