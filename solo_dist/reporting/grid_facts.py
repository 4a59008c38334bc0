"""Counts for a data set on the grids of SOLO: instances that share cells or have none, also on denser grids."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from solo_dist.config import GridConfig
from solo_dist.data import cells
from solo_dist.data.sharding.boxes import official_boxes
from solo_dist.masks.rle import segmentation_to_rle

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
    """Of these, the instances that lose all their cells: the category branch never learns them."""
    without_positives: int
    """Instances that no level is responsible for, or that have no pixel."""

    @property
    def without_cells(self) -> int:
        """Instances that lose all their cells or never have one: the network cannot learn them."""
        return self.lost + self.without_positives


def compare_grids(
    annotations: Mapping[str, Any], canvas: tuple[int, int], grid: GridConfig, densities: Sequence[float] = (1, 1.5)
) -> list[GridCounts]:
    """Counts on a sample of images, for each density: on grids with so many times the cells on each side.

    Args:
      annotations: the COCO json of a folder of shards.
      canvas: H, W.
      grid: of the recipe.
      densities: 1 is the grid as it is.
    """
    grids = [dataclasses.replace(grid, sizes=tuple(round(size * one) for size in grid.sizes)) for one in densities]
    images = _sample(annotations)
    if not any(image.rles for image in images):
        return [GridCounts(tuple(one.sizes), 0, 0, 0, 0) for one in grids]
    placed = cells.place(images, canvas)
    counts = [cells.count_cells(placed, one) for one in grids]
    return [
        GridCounts(tuple(one.sizes), found.objects, found.colliding, found.lost, found.without_positives)
        for one, found in zip(grids, counts, strict=True)
    ]


def _sample(annotations: Mapping[str, Any]) -> list[cells.ImageObjects]:
    """Images, spread evenly, with their objects; crowds are none."""
    images = annotations["images"]
    places = np.linspace(0, len(images) - 1, min(len(images), _IMAGES)).astype(int)
    entries: dict[int, list[Mapping[str, Any]]] = {images[place]["id"]: [] for place in places}
    for entry in annotations["annotations"]:
        if entry["image_id"] in entries and not entry.get("iscrowd", 0):
            entries[entry["image_id"]].append(entry)
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    return [_objects(sizes[number], mine) for number, mine in entries.items()]


def _objects(size: tuple[int, int], entries: Sequence[Mapping[str, Any]]) -> cells.ImageObjects:
    rles = [segmentation_to_rle(entry["segmentation"], *size) for entry in entries]
    return cells.ImageObjects(size, rles, official_boxes(entry["bbox"] for entry in entries))
