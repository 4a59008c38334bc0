"""Objects on a canvas, and what a set of grids makes of them: the numbers that the shard tool will count.

Placing and assigning are done by the functions that make the targets, so the counts are equal, not similar.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.config import GridConfig
from solo_dist.data import geometry
from solo_dist.masks import rle
from solo_dist.solo import targets


@dataclasses.dataclass(frozen=True)
class Placed:
    """All n objects of a data set on a canvas."""

    canvas: tuple[int, int]
    image: np.ndarray
    """int [n], number of the object's image."""
    boxes: np.ndarray
    """float32 [n, 4] x1, y1, x2, y2 in pixels of the canvas."""
    centers: np.ndarray
    """float32 [n, 2], mass centres as x, y."""
    has_pixels: np.ndarray
    """bool [n]; false: the object is too small to have a pixel on this canvas."""

    @property
    def sizes(self) -> np.ndarray:
        """float32 [n], sqrt(width * height), by which a level is chosen (quirk 5)."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.sqrt(sides[:, 0] * sides[:, 1])


@dataclasses.dataclass(frozen=True)
class CellCounts:
    """Objects of a data set on a set of grids."""

    objects: int
    colliding: int
    """Objects that lose a cell to a later object of their image."""
    lost: int
    """Of these, the objects that lose all their cells: the network never learns them."""
    without_positives: int
    """Objects that no level is responsible for, or that have no pixel."""
    uncovered: tuple[float, ...]
    """Sizes, in pixels of the canvas, that no level's range holds; ascending."""
    positives_per_level: tuple[int, ...]
    most_positives: int
    """Positives of the image that has the most."""


class ImageObjects(NamedTuple):
    """The m objects of an image, in the order in which they take cells."""

    size: tuple[int, int]
    """Height, width."""
    rles: Sequence[dict[str, Any]]
    """Compressed RLE of each."""
    boxes: np.ndarray
    """float32 [m, 4] x1, y1, x2, y2 of the first and last pixels, as `sharding.boxes.official_boxes` gives them."""


def place(images: Iterable[ImageObjects], canvas: tuple[int, int]) -> Placed:
    """Fits every image into the canvas, as the shard tool does without random scale or crop.

    At least one of the images must have an object.
    """
    move = _mover(canvas)
    parts, counts = [], []
    for image in images:
        counts.append(len(image.rles))
        if image.rles:
            runs = rle.from_numpy([rle.rle_to_runs(one) for one in image.rles])
            moved = move(runs, tf.constant(image.boxes), tf.constant(image.size))
            parts.append([values.numpy() for values in moved])
    boxes, centers, areas = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Placed(canvas, np.repeat(np.arange(len(counts)), counts), boxes, centers, areas > 0)


def _mover(canvas: tuple[int, int]) -> Any:
    """Traced function: runs, boxes float32 [m, 4], size int32 [2] -> boxes, centres, areas on the canvas."""

    def move(runs: rle.Runs, boxes: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        moved, boxes = geometry.move_instances(runs, boxes, size, geometry.whole_image(size, canvas))
        return boxes, *targets.mass_centers(moved, tf.shape(boxes)[0])

    column = tf.TensorSpec([None], tf.int32)
    signature = [rle.Runs(*[column] * 4), tf.TensorSpec([None, 4]), tf.TensorSpec([2], tf.int32)]
    return tf.function(move, input_signature=signature, autograph=False)


def count_cells(placed: Placed, grid: GridConfig) -> CellCounts:
    """Assigns cells to all objects, and counts."""
    objects = len(placed.image)
    found = targets.assign_positives(
        tf.constant(placed.boxes),
        tf.zeros([objects], tf.int32),
        tf.constant(placed.centers),
        tf.constant(placed.has_pixels),
        placed.canvas,
        grid,
    )
    cell, instance = found.cell.numpy(), found.instance.numpy()
    of_image = placed.image[instance]
    used, number = np.unique(of_image * grid.num_cells + cell, return_inverse=True)
    colliding, lost, without = targets.count_collisions(number, instance, objects, len(used))
    bounds = np.array(grid.scale_ranges, np.float32)
    sizes = placed.sizes[:, None]
    covered = ((sizes >= bounds[:, 0]) & (sizes <= bounds[:, 1])).any(axis=1)
    return CellCounts(
        objects,
        colliding,
        lost,
        without,
        tuple(np.sort(placed.sizes[~covered]).tolist()),
        tuple(np.histogram(cell, [*grid.first_cells, grid.num_cells])[0].tolist()),
        int(np.bincount(of_image).max(initial=0)),
    )
