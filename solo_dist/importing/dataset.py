"""The data between readers and writers: images with instances, each instance a category name and an RLE mask.

All masks are on the upright image, the one that people see: annotation tools turn an image by its EXIF tag before
they show it. `coco_json` turns masks back if COCO's readers expect the pixels as stored.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from solo_dist.errors import Unusable
from solo_dist.importing.left_out import Report


@dataclasses.dataclass(frozen=True)
class Instance:
    """One object, or a crowd of objects."""

    category: str
    rle: dict[str, Any]
    """Compressed RLE of the whole instance, of the image's size."""
    crowd: bool = False
    score: float | None = None
    """Confidence of a prediction; None: a person's annotation."""


@dataclasses.dataclass
class LabelledImage:
    """An image and its instances."""

    path: str
    """The image file; a path or URL. As the annotations name it if there is no such file."""
    height: int
    """Of the upright image, in pixels."""
    width: int
    orientation: int = 1
    """EXIF orientation of the file, 1 to 8; 1: its pixels are stored upright."""
    instances: list[Instance] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Dataset:
    """Everything that was read."""

    images: list[LabelledImage]
    categories: list[str]
    """Names; the position plus one becomes the category id."""
    report: Report

    @property
    def num_instances(self) -> int:
        """Instances of all images, crowds among them."""
        return sum(len(image.instances) for image in self.images)


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Mask, bool or 0/1, [H, W] -> compressed RLE."""
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def decode(rle: dict[str, Any]) -> np.ndarray:
    """Compressed RLE -> bool [H, W]."""
    return coco_mask.decode(rle).astype(bool)


def area(rle: dict[str, Any]) -> int:
    """Pixels of a mask."""
    return int(coco_mask.area(rle))


def union(rles: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The pixels of any of several masks of one size."""
    return rles[0] if len(rles) == 1 else coco_mask.merge(list(rles))


def checked(rle: dict[str, Any]) -> dict[str, Any]:
    """The mask itself. Raises Unusable if it has no pixel."""
    if area(rle) == 0:
        raise Unusable("no pixel inside the image")
    return rle


def without_duplicates(instances: Iterable[Instance], file: str, report: Report) -> list[Instance]:
    """Removes instances with the mask, category and kind (crowd or object) of an earlier one, and counts them."""
    kept: dict[tuple, Instance] = {}
    for instance in instances:
        key = (instance.category, instance.crowd, bytes(instance.rle["counts"]))
        if key in kept:
            report.leave_out(file, Unusable("same mask and category as another annotation", instance.category))
        else:
            kept[key] = instance
    return list(kept.values())
