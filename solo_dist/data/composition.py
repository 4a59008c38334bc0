"""One canvas of several images: a mosaic of four, and instances of one image pasted over another. Exact to the pixel.

Sources: mosaics, Bochkovskiy et al. 2020 (YOLOv4); pasting, Ghiasi et al. 2021 (Simple Copy-Paste), without blending at
the edges, which made no difference there. In both sources an instance goes once nothing of it is visible; here it goes
if less than a tenth is left, as a sliver cannot be recognised. Legend of shapes: `solo_dist.config`; m instances.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.data.geometry import PADDING, Placement
from solo_dist.masks import rle

LEAST_VISIBLE = 10
"""One in so many pixels of an instance has to be visible."""


class Scene(NamedTuple):
    """Pixels and instances of an image on the canvas, or of several that share it."""

    image: tf.Tensor
    """uint8 [h, w, 3]."""
    runs: rle.Runs
    """Masks of m instances."""
    boxes: tf.Tensor
    """float32 [m, 4] x1, y1, x2, y2."""
    categories: tf.Tensor
    """int32 [m]."""
    areas: tf.Tensor
    """int64 [m]: the pixels that each would have if nothing of it were cut off or covered."""


def whole_areas(runs: rle.Runs, num_instances: tf.Tensor, placement: Placement) -> tf.Tensor:
    """`Scene.areas`, int64 [m], of instances whose image, with these `runs`, is placed on the canvas."""
    areas = tf.cast(rle.areas(runs, num_instances), tf.int64)
    return areas * _area(placement.size) // _area(placement.window[2:])


def _area(size: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.cast(size, tf.int64))


def select(scene: Scene, kept: tf.Tensor) -> Scene:
    """The scene with the instances that are kept, bool [m], as its only ones."""
    rest = (tf.boolean_mask(part, kept) for part in (scene.boxes, scene.categories, scene.areas))
    return Scene(scene.image, rle.select(scene.runs, kept), *rest)


def visible(scene: Scene) -> tf.Tensor:
    """Which instances show a tenth of their pixels or more, bool [m]."""
    shown = tf.cast(rle.areas(scene.runs, tf.size(scene.categories)), tf.int64)
    return (shown > 0) & (shown * LEAST_VISIBLE >= scene.areas)


def empty(canvas: tuple[int, int]) -> Scene:
    """A canvas without an image."""
    no_int = tf.zeros([0], tf.int32)
    runs, boxes = rle.Runs(*[no_int] * 4), tf.zeros([0, 4])
    return Scene(tf.constant(np.full((*canvas, 3), PADDING, np.uint8)), runs, boxes, no_int, tf.zeros([0], tf.int64))


def _with_instances(scene: Scene, more: Scene) -> Scene:
    """The scene with the instances of another one after its own."""
    later = more.runs._replace(instance=more.runs.instance + tf.size(scene.categories))
    runs = rle.Runs(*(tf.concat(parts, axis=0) for parts in zip(scene.runs, later, strict=True)))
    rest = (tf.concat(parts, axis=0) for parts in zip(scene[2:], more[2:], strict=True))
    return Scene(scene.image, runs, *rest)


def _shifted(scene: Scene, corner: tf.Tensor) -> Scene:
    """The instances of a scene whose first pixel is at `corner`, int32 [2], of another image."""
    by = tf.cast(tf.gather(corner, [1, 0, 1, 0]), tf.float32)
    return scene._replace(runs=rle.shift(scene.runs, corner), boxes=scene.boxes + by)


# ---- Mosaics


def room_of(tile: tf.Tensor, center: tf.Tensor, canvas: tuple[int, int]) -> tf.Tensor:
    """The height and width, int32 [2], of a tile of a canvas.

    Args:
      tile: int32 scalar: 0, 1 above and 2, 3 below, each time from left to right.
      center: int32 [2] y, x of the point at which the tiles meet.
      canvas: H, W.
    """
    return tf.where(_is_far(tile), tf.constant(canvas) - center, center)


def corner_of(tile: tf.Tensor, center: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The first row and column, int32 [2], of an image of `size`, int32 [2], whose corner is at `center`."""
    return tf.where(_is_far(tile), center, center - size)


def _is_far(tile: tf.Tensor) -> tf.Tensor:
    return tf.stack([tile // 2 > 0, tile % 2 > 0])


def lay(canvas: Scene, scene: Scene, corner: tf.Tensor) -> Scene:
    """A scene on a free part of the canvas that begins at `corner`, int32 [2]."""
    (top, left), (height, width) = tf.unstack(corner, num=2), tf.unstack(tf.shape(scene.image)[:2], num=2)
    image, end, right = canvas.image, top + height, left + width
    strip = tf.concat([image[top:end, :left], scene.image, image[top:end, right:]], axis=1)
    image = tf.concat([image[:top], strip, image[end:]], axis=0)
    laid = canvas._replace(image=tf.ensure_shape(image, canvas.image.shape))
    return _with_instances(laid, _shifted(scene, corner))


# ---- Pasting


def paste(below: Scene, above: Scene, corner: tf.Tensor) -> Scene:
    """All instances of `above` over `below`, without what is around them.

    What they cover is taken from the masks below, and the boxes of these become tight.

    Args:
      below: a scene.
      above: a scene that is not larger.
      corner: int32 [2] row and column of `below` at which `above` begins.
    """
    width = tf.shape(below.image)[1]
    placed = _shifted(above, corner)
    num_instances = tf.size(below.categories)
    left = rle.subtract(below.runs, placed.runs, width)
    changed = rle.areas(left, num_instances) < rle.areas(below.runs, num_instances)
    boxes = tf.where(changed[:, None], rle.tight_boxes(left, num_instances), below.boxes)
    below = below._replace(runs=left, boxes=boxes, image=_with_pixels(below.image, above, corner))
    return _with_instances(below, placed)


def _with_pixels(image: tf.Tensor, above: Scene, corner: tf.Tensor) -> tf.Tensor:
    """The image, uint8 [h, w, 3], with the pixels of all instances of a scene that begins at `corner`."""
    index, column = rle.pixels(above.runs)
    place = tf.stack([tf.gather(above.runs.row, index), column], axis=1)
    return tf.tensor_scatter_nd_update(image, place + corner, tf.gather_nd(above.image, place))
