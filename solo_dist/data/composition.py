"""One canvas of several images: a mosaic of four, and instances of one image pasted over another. Exact to the pixel.

Sources: mosaics, Bochkovskiy et al. 2020 (YOLOv4); pasting, Ghiasi et al. 2021 (Simple Copy-Paste), without blending at
the edges, which made no difference there. In both sources an instance goes once nothing of it is visible; here it goes
if less than a tenth is left, as a sliver cannot be recognised. Legend of shapes: `solo_dist.config`; m instances.
"""

from collections.abc import Sequence
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


def joined(image: tf.Tensor, scenes: Sequence[Scene]) -> Scene:
    """The instances of all scenes, in order, over one image, uint8 [h, w, 3]."""
    counts = [tf.size(scene.categories) for scene in scenes]
    runs = [
        scene.runs._replace(instance=scene.runs.instance + sum(counts[:k], tf.constant(0)))
        for k, scene in enumerate(scenes)
    ]
    boxes, categories, areas = (
        tf.concat(parts, axis=0) for parts in zip(*(scene[2:] for scene in scenes), strict=True)
    )
    return Scene(
        image, rle.Runs(*(tf.concat(parts, axis=0) for parts in zip(*runs, strict=True))), boxes, categories, areas
    )


# ---- Mosaics


def rooms(center: tf.Tensor, canvas: tuple[int, int]) -> list[tf.Tensor]:
    """The sizes, int32 [2], of the four parts of a canvas that meet at `center`, int32 [2]: two above, two below."""
    far = tf.constant(canvas) - center
    return [tf.stack([y, x]) for y in (center[0], far[0]) for x in (center[1], far[1])]


def mosaic(parts: Sequence[Scene], center: tf.Tensor, canvas: tuple[int, int]) -> Scene:
    """Four scenes on one canvas, each in the corner of its room that is at `center`; padding is at the edges.

    Args:
      parts: scenes that are not larger than their `rooms`.
      center: int32 [2] y, x.
      canvas: H, W.
    """
    empty = tf.constant(np.full((*canvas, 3), PADDING, np.uint8))
    tiles, moved = [], []
    for k, (part, room) in enumerate(zip(parts, rooms(center, canvas), strict=True)):
        is_above, is_left = k < 2, k % 2 == 0
        size = tf.shape(part.image)[:2]
        beside = empty[: size[0], : room[1] - size[1]]
        strip = tf.concat([beside, part.image] if is_left else [part.image, beside], axis=1)
        outside = empty[: room[0] - size[0], : room[1]]
        tiles.append(tf.concat([outside, strip] if is_above else [strip, outside], axis=0))
        corner = center - size * tf.constant([is_above, is_left], tf.int32)
        moved.append(select(_shifted(part, corner), visible(part)))
    image = tf.concat([tf.concat(tiles[:2], axis=1), tf.concat(tiles[2:], axis=1)], axis=0)
    return joined(tf.ensure_shape(image, [*canvas, 3]), moved)


def _shifted(scene: Scene, corner: tf.Tensor) -> Scene:
    """The instances of a scene whose first pixel is at `corner`, int32 [2], of another image."""
    by = tf.cast(tf.gather(corner, [1, 0, 1, 0]), tf.float32)
    return scene._replace(runs=rle.shift(scene.runs, corner), boxes=scene.boxes + by)


# ---- Pasting


def paste(below: Scene, above: Scene, corner: tf.Tensor) -> Scene:
    """All instances of `above` over `below`, without what is around them.

    What they cover is taken from the masks below, whose boxes become tight if anything is.

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
    return joined(below.image, [select(below, visible(below)), placed])


def _with_pixels(image: tf.Tensor, above: Scene, corner: tf.Tensor) -> tf.Tensor:
    """The image, uint8 [h, w, 3], with the pixels of all instances of a scene that begins at `corner`."""
    index, column = rle.pixels(above.runs)
    place = tf.stack([tf.gather(above.runs.row, index), column], axis=1)
    return tf.tensor_scatter_nd_update(image, place + corner, tf.gather_nd(above.image, place))
