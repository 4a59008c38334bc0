"""What the grids of SOLO do to a data set: instances that share cells, that have none, and what denser grids change."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from solo_dist.config import GridConfig
from solo_dist.data import transforms
from solo_dist.masks import rle as runs
from solo_dist.solo import targets

_IMAGES = 100
"""Most images that the effect of denser grids is counted on."""
_DENSER = 1.5


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


def compare_grids(annotations: Mapping[str, Any], canvas: tuple[int, int], grid: GridConfig) -> list[GridCounts]:
    """Counts on a sample of images: on the grids as they are, and with half as many cells more on each side."""
    denser = dataclasses.replace(grid, sizes=tuple(round(size * _DENSER) for size in grid.sizes))
    images = annotations["images"]
    places = np.linspace(0, len(images) - 1, min(len(images), _IMAGES)).astype(int)
    chosen = {images[place]["id"] for place in places}
    entries: dict[int, list[Mapping[str, Any]]] = {}
    for entry in annotations["annotations"]:
        if entry["image_id"] in chosen and not entry.get("iscrowd", 0):
            entries.setdefault(entry["image_id"], []).append(entry)
    sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
    counts = np.zeros((2, 4), int)
    for image_id, mine in entries.items():
        instances = _on_canvas(mine, sizes[image_id], canvas)
        for row, other in zip(counts, (grid, denser), strict=True):
            row += _count(*instances, canvas, other)
    return [GridCounts(tuple(g.sizes), *map(int, row)) for g, row in zip((grid, denser), counts, strict=True)]


def _on_canvas(
    entries: Sequence[Mapping[str, Any]], size: tuple[int, int], canvas: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Boxes [m,4], mass centres [m,2] and areas [m] of instances on the canvas."""
    geometry = transforms.whole_picture(tf.constant(size), canvas)
    masks = runs.from_numpy([runs.rle_to_runs(runs.segmentation_to_rle(e["segmentation"], *size)) for e in entries])
    moved, boxes = transforms.move_instances(masks, runs.tight_boxes(masks, len(entries)), tf.constant(size), geometry)
    centers, areas = targets.mass_centers(moved, len(entries))
    return boxes, centers, areas


def _count(
    boxes: tf.Tensor, centers: tf.Tensor, areas: tf.Tensor, canvas: tuple[int, int], grid: GridConfig
) -> np.ndarray:
    """Instances; colliding, lost, without positives."""
    categories = tf.zeros([len(boxes)], tf.int32)
    positives = targets.assign_positives(boxes, categories, centers, areas > 0, canvas, grid)
    cell, instance = positives.cell.numpy(), positives.instance.numpy()
    owner = np.full(grid.num_cells, -1)
    np.maximum.at(owner, cell, instance)
    before = np.bincount(instance, minlength=len(boxes))
    after = np.bincount(instance[owner[cell] == instance], minlength=len(boxes))
    return np.array([len(boxes), (after < before).sum(), ((after == 0) & (before > 0)).sum(), (before == 0).sum()])
