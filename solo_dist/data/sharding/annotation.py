"""An entry of `annotations` of a COCO json, checked, with its mask as RLE.

An entry that cannot be used has a reason. One that is used, but seems to say something else than it means, has notices.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from pycocotools import mask as coco_mask

from solo_dist.coco_values import boolean, identifier, is_absent, number, numbers, shown
from solo_dist.data.sharding.boxes import misfit
from solo_dist.data.sharding.coco_image import CocoImage
from solo_dist.data.sharding.reading import Reading
from solo_dist.data.sharding.segmentations import Mask, reaches_out, read_mask
from solo_dist.errors import Unusable

NUMBER = "number"
"""Key of a raw annotation: its place in the file, from 1, counted on through several files.

It is its id from here on: ids in files serve nothing.
"""
REACHES_OUT = "mask reaches out of the image and is cut off"
CROSSES_ITSELF = "outline crosses itself"
PART_LEFT_OUT = "a part of the mask is left out"
_DEFAULTS = Reading()


@dataclasses.dataclass(frozen=True)
class Annotation:
    """An entry of `annotations` whose mask belongs to its image."""

    id: int
    """Its place in the file, from 1."""
    category: int
    """Class 0..C-1."""
    bbox: tuple[float, float, float, float]
    """x, y, width, height in pixels of the original image."""
    area: float
    rle: dict
    """Compressed RLE of the whole instance."""
    untrainable: str
    """Reason not to train on it (crowd, ...); empty: train. Evaluation takes all."""
    notices: tuple[str, ...] = ()
    """What seems to be wrong with it."""


def clean_annotation(
    raw: dict[str, Any], image: CocoImage, class_of: dict[int, int], reading: Reading = _DEFAULTS
) -> Annotation:
    """Checks a raw annotation of an image and turns its mask into RLE.

    Official behaviour (quirk 7): crowd, ignore, area <= 0, width or height below 1 are not trained on. An area or bbox
    that is absent is taken from the mask.

    Raises:
      Unusable: with the reason; such an annotation cannot be evaluated either.
    """
    category = _category_of(raw, class_of)
    if not image.height:
        raise Unusable("image size is not known")
    mask = read_mask(raw.get("segmentation"), image.height, image.width)
    bbox, area = coco_mask.toBbox(mask.rle).tolist(), float(coco_mask.area(mask.rle))
    if reading.boxes == "json":
        bbox, area = _box_and_area(raw, bbox, area)
    crowd = boolean(raw.get("iscrowd"), "iscrowd") and reading.crowd == "crowd"
    return Annotation(
        id=raw.get(NUMBER, 0),
        category=category,
        bbox=tuple(map(float, bbox)),  # type: ignore[arg-type]
        area=float(area),
        rle=mask.rle,
        untrainable=_reason_not_to_train(crowd, boolean(raw.get("ignore"), "ignore"), bbox, area),
        notices=tuple(_notices(mask, bbox)),
    )


def _category_of(raw: dict[str, Any], class_of: dict[int, int]) -> int:
    try:
        category = identifier(raw.get("category_id"), "category_id")
    except Unusable as error:
        raise Unusable(f"unknown category: {error}", error.detail) from error
    if category not in class_of:
        raise Unusable("unknown category", f"category_id {category}")
    return class_of[category]


def _box_and_area(raw: dict[str, Any], bbox: list[float], area: float) -> tuple[list[float], float]:
    """Those of the json, or the given ones of the mask if it has none."""
    if not is_absent(raw.get("bbox")):
        read = numbers(raw["bbox"], 4)
        if read is None:
            raise Unusable("bbox is not four finite numbers", shown(raw["bbox"]))
        bbox = read
    if not is_absent(raw.get("area")):
        given = number(raw["area"])
        if given is None:
            raise Unusable("area is not a finite number", shown(raw["area"]))
        area = given
    return bbox, area


def _notices(mask: Mask, bbox: list[float]) -> Iterator[str]:
    if wrong := box_notice(mask, bbox):
        yield wrong
    yield from mask_notices(mask)
    for reason in dict.fromkeys(mask.left_out):
        yield f"{PART_LEFT_OUT}: {reason}"


def box_notice(mask: Mask, bbox: list[float]) -> str:
    """What seems to be wrong with the box x, y, width, height of an annotation that has this mask; "": nothing."""
    x, y, width, height = coco_mask.toBbox(mask.rle).tolist()
    return misfit(bbox, [mask.extent, (x, y, x + width, y + height)])


def mask_notices(mask: Mask) -> Iterator[str]:
    """What seems to be wrong with the outline of a mask."""
    if reaches_out(mask.extent, *mask.rle["size"]):
        yield REACHES_OUT
    if mask.crossed:
        yield CROSSES_ITSELF


def _reason_not_to_train(crowd: bool, ignore: bool, bbox: list[float], area: float) -> str:
    if crowd:
        return "crowd"
    if ignore:
        return "ignore"
    if area <= 0:
        return "area not above 0"
    if bbox[2] < 1 or bbox[3] < 1:
        return "box narrower or lower than 1 pixel"
    return ""
