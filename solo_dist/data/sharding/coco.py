"""Reading COCO instance files, checked entry by entry: every entry that cannot be used has a reason.

A file that is not COCO raises CocoError. An entry that is unusable becomes a Rejection, and the others are still read.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any, TypeGuard

import numpy as np
from pycocotools import mask as coco_mask

from solo_dist.data.image_io import Unusable
from solo_dist.data.sharding.coco_json import CocoError, stream_arrays
from solo_dist.masks.rle import MAX_SIDE, segmentation_to_rle


@dataclasses.dataclass(frozen=True)
class Rejection:
    """An annotation or image that is not in the records."""

    kind: str
    """annotation or image."""
    id: Any
    file: str
    """File name of the image; empty if it is not known."""
    reason: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class CocoImage:
    """An entry of `images`."""

    id: int
    file_name: str
    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class Annotation:
    """An entry of `annotations` whose mask belongs to its image."""

    id: int
    category: int
    """Class 0..C-1."""
    bbox: tuple[float, float, float, float]
    """x, y, width, height in pixels of the original image."""
    area: float
    rle: dict
    """Compressed RLE of the whole instance."""
    untrainable: str
    """Reason not to train on it (crowd, ...); empty: train. Evaluation takes all."""


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Images and categories of a COCO file, without its annotations."""

    images: list[CocoImage]
    categories: list[dict[str, Any]]
    """{"id", "name"}, by ascending id: the position is the class, whatever the order in the file."""
    rejected: list[Rejection]


def read_catalogue(path: str) -> Catalogue:
    """Reads images and categories; entries of images that cannot be used are in `rejected`.

    Raises:
      CocoError: the file does not exist, is not json, or is not COCO instances.
    """
    images: dict[int, CocoImage] = {}
    rejected: list[Rejection] = []
    categories: list[Any] = []
    for name, entry in stream_arrays(path):
        if name == "categories":
            categories.append(entry)
        elif name == "images":
            try:
                image = _image_of(entry)
                if image.id in images:
                    raise Unusable("duplicate image id")
                images[image.id] = image
            except Unusable as error:
                known = entry if isinstance(entry, dict) else {}
                rejected.append(Rejection("image", known.get("id"), str(known.get("file_name", "")), str(error)))
    if not images:
        raise CocoError(
            f"{path} has no usable image; {rejected[0].reason if rejected else 'its images list is empty'}."
        )
    return Catalogue(list(images.values()), _categories_of(categories, path), rejected)


def read_annotations(path: str, images: dict[int, CocoImage]) -> Iterator[dict[str, Any] | Rejection]:
    """Annotations in the order of the file, raw but with usable ids, and a Rejection for each that has none."""
    seen: set[int] = set()
    for name, entry in stream_arrays(path):
        if name != "annotations":
            continue
        if not isinstance(entry, dict):
            yield Rejection("annotation", None, "", "annotation is not an object")
            continue
        number, image = entry.get("id"), entry.get("image_id")
        file = images[image].file_name if _is_id(image) and image in images else ""
        if not _is_id(number):
            yield Rejection("annotation", number, file, "annotation id is not an integer")
        elif number in seen:
            yield Rejection("annotation", number, file, "duplicate annotation id")
        elif not file:
            yield Rejection("annotation", number, "", "no such image", f"image_id {image}")
        else:
            seen.add(number)
            yield entry


def clean_annotation(raw: dict[str, Any], image: CocoImage, class_of: dict[int, int]) -> Annotation:
    """Checks a raw annotation of an image and turns its mask into RLE.

    Official behaviour (quirk 7): crowd, ignore, area <= 0, width or height below 1 are not trained on. An area or bbox
    that is absent is taken from the mask.

    Raises:
      Unusable: with the reason; such an annotation cannot be evaluated either.
    """
    category = raw.get("category_id")
    if not _is_id(category) or category not in class_of:
        raise Unusable("unknown category")
    try:
        rle = segmentation_to_rle(raw.get("segmentation"), image.height, image.width)
    except ValueError as error:
        raise Unusable(str(error)) from error
    if not int(coco_mask.area(rle)):
        raise Unusable("mask covers no pixel of the image")
    area = raw.get("area", float(coco_mask.area(rle)))
    bbox = raw.get("bbox", coco_mask.toBbox(rle).tolist())
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        raise Unusable("bbox is not four finite numbers")
    if not _is_number(area):
        raise Unusable("area is not a finite number")
    return Annotation(
        id=raw["id"],
        category=class_of[category],
        bbox=tuple(map(float, bbox)),  # type: ignore[arg-type]
        area=float(area),
        rle=rle,
        untrainable=_reason_not_to_train(raw, bbox, area),
    )


def _image_of(entry: Any) -> CocoImage:
    if not isinstance(entry, dict):
        raise Unusable("image is not an object")
    if not _is_id(entry.get("id")):
        raise Unusable("image id is not an integer")
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        raise Unusable("image has no file_name")
    sides = []
    for name in ("height", "width"):
        side = entry.get(name)
        if not _is_number(side) or side != int(side) or not 0 < side <= MAX_SIDE:
            raise Unusable(f"image height or width is not an integer from 1 to {MAX_SIDE}")
        sides.append(int(side))
    return CocoImage(entry["id"], entry["file_name"], *sides)


def _categories_of(entries: list[Any], path: str) -> list[dict[str, Any]]:
    categories: dict[int, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not isinstance(entry.get("name"), str):
            raise CocoError(f"{path}: the category {json.dumps(entry)[:100]} needs an integer id and a name.")
        if entry["id"] in categories:
            raise CocoError(f"{path}: two categories have the id {entry['id']}.")
        categories[entry["id"]] = entry["name"]
    if not categories:
        raise CocoError(f"{path} has no categories; add at least one with an id and a name.")
    return [{"id": number, "name": name} for number, name in sorted(categories.items())]


def _reason_not_to_train(raw: dict[str, Any], bbox: list[float], area: float) -> str:
    if raw.get("iscrowd"):
        return "crowd"
    if raw.get("ignore"):
        return "ignore"
    if area <= 0:
        return "area not above 0"
    if bbox[2] < 1 or bbox[3] < 1:
        return "box narrower or lower than 1 pixel"
    return ""


def _is_id(value: Any) -> TypeGuard[int]:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and abs(value) < 1e15 and math.isfinite(value)


def official_boxes(annotations: list[Annotation]) -> np.ndarray:
    """Boxes float32 [m, 4] x1, y1, x2, y2, the last pixels inclusive: the official x + width - 1."""
    boxes = np.array([annotation.bbox for annotation in annotations], np.float32).reshape(-1, 4)
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:] - 1
    return boxes
