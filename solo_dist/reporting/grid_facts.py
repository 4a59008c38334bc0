"""Counts for a data set on the grids of SOLO: instances that share cells or have none, also on denser grids."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from solo_dist.config import GridConfig
from solo_dist.data import geometry
from solo_dist.masks import rle as runs
from solo_dist.solo import targets

_IMAGES = 500
"""Most images that the effect of denser grids is counted on."""


@dataclasses.dataclass(frozen=True)
class GridCounts:
    """Instances of a sample of images on a set of grids."""

    sizes: tuple[int, ...]
    instances: int
    colliding: int
    """Instances that lose a cell to a later one."""
    lost: int
    """Of these, all their cells: the category branch never learns them."""
    without_positives: int
    """No level is responsible for them."""


def compare_grids(
    annotations: Mapping[str, Any], canvas: tuple[int, int], grid: GridConfig, densities: Sequence[float] = (1, 1.5)
) -> list[GridCounts]:
    """Counts on a sample of images, for each density: on grids with so many times the cells on each side."""
    grids = [dataclasses.replace(grid, sizes=tuple(round(size * one) for size in grid.sizes)) for one in densities]
    images = annotations["images"]
    places = np.linspace(0, len(images) - 1, min(len(images), _IMAGES)).astype(int)
    chosen = {images[place]["id"] for place in places}
    entries: dict[int, list[Mapping[str, Any]]] = {}
    for entry in annotations["annotations"]:
        if entry["image_id"] in chosen and not entry.get("iscrowd", 0):
            entries.setdefault(entry["image_id"], []).append(entry)
    sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
    counts = [np.zeros(4, int) for _ in grids]
    assign = _assigner(canvas, grids)
    for image_id, mine in entries.items():
        size = sizes[image_id]
        masks = [runs.rle_to_runs(runs.segmentation_to_rle(e["segmentation"], *size)) for e in mine]
        positives = assign(runs.from_numpy(masks), len(mine), size)
        for row, other, (cell, instance) in zip(counts, grids, positives, strict=True):
            row += len(mine), *targets.count_collisions(cell.numpy(), instance.numpy(), len(mine), other.num_cells)
    return [GridCounts(tuple(g.sizes), *map(int, row)) for g, row in zip(grids, counts, strict=True)]


def _assigner(canvas: tuple[int, int], grids: Sequence[GridConfig]) -> Any:
    """Traced function: runs, their m, size int32 [2] -> cells and instances of the positives on each grid."""
    column, pair = tf.TensorSpec([None], tf.int32), tf.TensorSpec([2], tf.int32)

    @tf.autograph.experimental.do_not_convert
    def assign(masks: runs.Runs, count: tf.Tensor, size: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        placement = geometry.whole_image(size, canvas)
        moved, boxes = geometry.move_instances(masks, runs.tight_boxes(masks, count), size, placement)
        centers, areas = targets.mass_centers(moved, count)
        categories = tf.zeros([count], tf.int32)
        found = [targets.assign_positives(boxes, categories, centers, areas > 0, canvas, grid) for grid in grids]
        return [(positives.cell, positives.instance) for positives in found]

    return tf.function(assign, input_signature=[runs.Runs(*[column] * 4), tf.TensorSpec([], tf.int32), pair])
