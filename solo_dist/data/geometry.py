"""How an image of any size becomes a canvas: a window of whole pixels is cut out, resized, mirrored, turned, padded.

Training, evaluation, prediction, export and the shard tool all use these functions, so that images are
prepared alike in training and inference. Masks as row runs follow the image exactly, by integer maps. Legend of shapes:
`solo_dist.config`; m instances of an image, r runs.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.config import MASK_STRIDE
from solo_dist.masks import rle

PADDING = (124, 116, 104)
"""Colour of the canvas beyond the image: the mean of ImageNet, 0 once normalised, as the official padding."""

REDUCTIONS = (1, 2, 4, 8)
"""Factors by which a JPEG can be shrunk while it is decoded."""

_POWERS_OF_TWO = tuple(2**power for power in range(16))


class Placement(NamedTuple):
    """Cut `window` out of the stored image, resize it to `size`, then mirror it if `flip`."""

    window: tf.Tensor
    """int32 [4]: first row, first column, height, width in pixels of the stored image."""
    size: tf.Tensor
    """int32 [2]: height, width on the canvas."""
    factor: tf.Tensor
    """float64 scalar: the scale. The sides of `size` are those of the window times the factor, rounded."""
    flip: tf.Tensor
    """bool scalar."""


# ---- Which placement


def fit_factor(size: tf.Tensor, canvas: tuple[int, int]) -> tf.Tensor:
    """The largest scale at which an image of `size`, int32 [2], fits into the canvas; float64 scalar."""
    return tf.reduce_min(tf.constant(canvas, tf.float64) / tf.cast(size, tf.float64))


def scaled_size(size: tf.Tensor, factor: tf.Tensor, canvas: tuple[int, int] | tf.Tensor) -> tf.Tensor:
    """The size, int32 [2], that an image of `size` takes on the canvas if it is scaled by `factor`, float64 scalar.

    Sides are rounded to multiples of 4, so that masks at 1/4 are exact under a flip within the image.
    """
    sides = tf.cast(size, tf.float64) * factor
    rounded = tf.cast(tf.floor(sides / MASK_STRIDE + 0.5), tf.int32) * MASK_STRIDE
    return tf.clip_by_value(rounded, MASK_STRIDE, tf.convert_to_tensor(canvas, tf.int32))


def whole_image(size: tf.Tensor, canvas: tuple[int, int], flip: tf.Tensor | bool = False) -> Placement:
    """The placement of a whole image of `size`, int32 [2] height, width, as large as fits into the canvas."""
    factor = fit_factor(size, canvas)
    window = tf.concat([[0, 0], size], axis=0)
    return Placement(window, scaled_size(size, factor, canvas), factor, tf.convert_to_tensor(flip))


def stored_image(size: tf.Tensor, canvas: tuple[int, int], keep_original: bool, flip: tf.Tensor | bool) -> Placement:
    """The placement of precomputed targets for a stored image of `size`, int32 [2] height, width.

    With `keep_original`, the stored image has its original size and is fitted into the canvas. Otherwise it already has
    its size on the canvas.
    """
    if keep_original:
        return whole_image(size, canvas, flip)
    window = tf.concat([[0, 0], size], axis=0)
    return Placement(window, size, tf.constant(1.0, tf.float64), tf.convert_to_tensor(flip))


def reduction(size: tf.Tensor, canvas: tuple[int, int], largest_scale: float = 1.0) -> tf.Tensor:
    """The factor by which a JPEG of `size`, int32 [2], may be shrunk while it is decoded: int32 scalar 1, 2, 4 or 8.

    It is the largest after which the decoded image need not be enlarged, even if the image is scaled to `largest_scale`
    times the size at which it fits into the canvas.
    """
    return _largest_of(REDUCTIONS, 1.0 / (max(1.0, largest_scale) * fit_factor(size, canvas)))


def _largest_of(factors: tuple[int, ...], limit: tf.Tensor) -> tf.Tensor:
    """The largest of ascending factors that is at most the limit, float64 scalar; the first one if all are larger."""
    return tf.reduce_max(tf.where(tf.constant(factors, tf.float64) <= limit, factors, factors[0]))


# ---- Pixels


def letterbox(image: tf.Tensor, canvas: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Fits a whole image into the canvas, as evaluation does.

    Args:
      image: uint8 [H0,W0,3].
      canvas: H, W.

    Returns:
      uint8 [H,W,3], and the size of the image on it, int32 [2].
    """
    placement = whole_image(tf.shape(image)[:2], canvas)
    return pad_to_canvas(to_uint8(move_image(image, placement)), canvas), placement.size


def move_image(image: tf.Tensor, placement: Placement, reduced_by: tf.Tensor | int = 1) -> tf.Tensor:
    """uint8 [height, width, 3], decoded with a `reduction` -> float32 [*placement.size, 3].

    An image that is at least twice too large is first shrunk by a power of two, each pixel the mean of those that it
    covers. In training the JPEG decoder does nearly the same at no cost. The rest of the resize is bilinear with
    half-pixel centres, as in the official pipeline, which never shrinks by so much. Only the window is resized.
    """
    y, x, height, width = tf.unstack(-(-placement.window // reduced_by), num=4)
    image = image[y : y + height, x : x + width][None]
    step = _largest_of(_POWERS_OF_TWO, 1.0 / (placement.factor * tf.cast(reduced_by, tf.float64)))

    def bilinear(pixels: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.ResizeBilinear(images=pixels, size=placement.size, half_pixel_centers=True)

    def shrunk() -> tf.Tensor:
        return tf.raw_ops.ResizeArea(images=image, size=-(-tf.stack([height, width]) // step))

    resized = tf.cond(step > 1, lambda: bilinear(shrunk()), lambda: bilinear(image))[0]
    return flip_image(resized, placement.flip)


def flip_image(image: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """[h, w, c] of any type, mirrored left and right if `flip`."""
    return tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)


def pad_to_canvas(image: tf.Tensor, canvas: tuple[int, int]) -> tf.Tensor:
    """uint8 [h, w, 3] -> [H, W, 3] with the image at the top left and PADDING elsewhere."""
    height, width = tf.unstack(tf.shape(image)[:2])
    # Pieces of a constant canvas are copied row by row, which is faster than computing the colour pixel by pixel.
    empty = tf.constant(np.full((*canvas, 3), PADDING, np.uint8))
    image = tf.concat([image, empty[:height, width:]], axis=1)
    return tf.ensure_shape(tf.concat([image, empty[height:]], axis=0), [*canvas, 3])


def to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Rounded and bounded to 0..255."""
    return pixels if pixels.dtype == tf.uint8 else tf.cast(tf.clip_by_value(pixels + 0.5, 0.0, 255.0), tf.uint8)


# ---- Instances


def move_instances(
    runs: rle.Runs, boxes: tf.Tensor, size: tf.Tensor, placement: Placement
) -> tuple[rle.Runs, tf.Tensor]:
    """Masks and boxes on the canvas. Instances keep their index; one that was cut off entirely has no run.

    Boxes of whole instances are moved, as the official pipeline does; those of instances that lost pixels to the
    window become the tight boxes of their remaining pixels. The box of an instance without a pixel is undefined.

    Args:
      runs: masks of m instances in pixels of the stored image.
      boxes: float32 [m, 4] x1, y1, x2, y2 in pixels of the stored image.
      size: int32 [2], height, width of the stored image.
      placement: of the image on the canvas.
    """
    y, x, height, width = tf.unstack(placement.window, num=4)
    rows = rle.nearest_source(height, placement.size[0]) + y
    columns = rle.nearest_source(width, placement.size[1]) + x
    moved = rle.resample(runs, rows, columns, size)
    num_instances = tf.shape(boxes)[0]
    corner = tf.cast(tf.stack([x, y, x, y]), tf.float32)
    whole = scale_boxes(boxes - corner, placement.factor, placement.size)
    boxes = tf.where(
        _inside(rle.tight_boxes(runs, num_instances), placement.window)[:, None],
        whole,
        rle.tight_boxes(moved, num_instances),
    )

    def mirrored() -> tuple[rle.Runs, tf.Tensor]:
        return rle.flip(moved, placement.size[1]), flip_boxes(boxes, placement.size[1])

    return tf.cond(placement.flip, mirrored, lambda: (moved, boxes))


def _inside(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Which boxes, float32 [m, 4] of inclusive pixels, lie within the window; bool [m]."""
    y, x, height, width = tf.unstack(tf.cast(window, tf.float32), num=4)
    low, high = boxes[:, :2], boxes[:, 2:]
    return tf.reduce_all((low >= tf.stack([x, y])) & (high < tf.stack([x + width, y + height])), axis=1)


def scale_boxes(boxes: tf.Tensor, factor: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Boxes float32 [m, 4] on an image that was scaled by `factor`, a float scalar, to `size`, int32 [2].

    As in the official code, all coordinates are multiplied by the same factor, although the sides were rounded, and
    clipped to the first and last pixel of the image.
    """
    limit = tf.cast(size - 1, tf.float32)
    return tf.clip_by_value(boxes * tf.cast(factor, tf.float32), 0.0, tf.gather(limit, [1, 0, 1, 0]))


def flip_boxes(boxes: tf.Tensor, width: tf.Tensor | int) -> tf.Tensor:
    """Boxes float32 [m, 4] mirrored within `width` columns: x becomes width - 1 - x."""
    x1, y1, x2, y2 = tf.unstack(boxes, num=4, axis=1)
    last = tf.cast(width, tf.float32) - 1.0
    return tf.stack([last - x2, y1, last - x1, y2], axis=1)


# ---- Quarter turns


def turn_image(image: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """[h, w, c] turned counter-clockwise by `turns`, int32 scalar 0..3, times 90 degrees."""
    return tf.image.rot90(image, turns)


def turn_instances(
    runs: rle.Runs, boxes: tf.Tensor, size: tf.Tensor, turns: tf.Tensor
) -> tuple[rle.Runs, tf.Tensor, tf.Tensor]:
    """Masks, boxes and size of an image that `turn_image` has turned.

    Args:
      runs: masks of m instances.
      boxes: float32 [m, 4] x1, y1, x2, y2 of inclusive pixels.
      size: int32 [2], height, width.
      turns: int32 scalar 0..3.
    """
    # A quarter turn is a transposition and then a reflection; two of them reflect both ways.
    runs, boxes, size = tf.cond(
        turns % 2 > 0,
        lambda: (rle.transpose(runs, size), tf.gather(boxes, [1, 0, 3, 2], axis=1), size[::-1]),
        lambda: (runs, boxes, size),
    )
    runs, boxes = tf.cond(
        turns >= 2,
        lambda: (rle.flip(runs, size[1]), flip_boxes(boxes, size[1])),
        lambda: (runs, boxes),
    )
    # A box read backwards has y for x, so that flip_boxes mirrors it above and below.
    runs, boxes = tf.cond(
        (turns == 1) | (turns == 2),
        lambda: (rle.flip_rows(runs, size[0]), flip_boxes(boxes[:, ::-1], size[0])[:, ::-1]),
        lambda: (runs, boxes),
    )
    return runs, boxes, size
