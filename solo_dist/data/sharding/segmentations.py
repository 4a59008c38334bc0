"""The mask of an annotation, however its segmentation is written: a bad part costs the part, not the instance.

Read are COCO's polygons and RLE and, because they can mean one thing only: a polygon that is nested in no list (VIA) or
in too many, polygons of [x, y] or {"x", "y"}, VIA's all_points_x and all_points_y, RLE nested in a list, numbers as
text, a list or an object as text, and the text that Python shows for the bytes of an RLE.
"""

import ast
import dataclasses
from collections.abc import Iterator
from typing import Any

from pycocotools import mask as coco_mask

from solo_dist.coco_values import identifier, is_absent, number, numbers, shown, structure
from solo_dist.data.sharding.crossings import crosses_itself
from solo_dist.errors import Unusable
from solo_dist.masks.rle import segmentation_to_rle

_OUTSIDE = 2
"""Pixels by which a polygon may reach out of its image without being noticed: tools round, and people drag."""

Extent = tuple[float, float, float, float]
"""Smallest x and y, largest x and y."""


@dataclasses.dataclass(frozen=True)
class Mask:
    """The mask of an instance."""

    rle: dict[str, Any]
    """Compressed RLE, with one pixel at least."""
    extent: Extent
    """Extent of the outline, which can reach out of the image."""
    left_out: tuple[str, ...] = ()
    """Why parts of it are left out."""
    crossed: bool = False
    """An outline crosses itself."""


def reaches_out(extent: Extent, height: int, width: int) -> bool:
    """Whether an outline lies outside the image to an extent that rounding does not explain."""
    x0, y0, x1, y1 = extent
    return min(x0, y0, width - x1, height - y1) < -_OUTSIDE


def read_mask(segmentation: Any, height: int, width: int) -> Mask:
    """The mask of a segmentation in an image of height x width.

    Raises:
      Unusable: with the reason of the first part, if there is no usable one.
    """
    parts, left_out = _parts(segmentation)
    polygons, rles = [], []
    for part in parts:
        try:
            if isinstance(part, dict):
                rles.append(segmentation_to_rle(_plain_rle(part), height, width))
            else:
                polygons.append(part)
        except ValueError as error:
            size = f"size {shown(part['size'])}" if isinstance(part, dict) and "size" in part else ""
            left_out.append(Unusable(str(error), size))
    if not polygons and not rles:
        raise left_out[0] if left_out else Unusable("empty segmentation")
    if polygons:
        rles.append(segmentation_to_rle(polygons, height, width))
    rle = rles[0] if len(rles) == 1 else coco_mask.merge(rles)
    extent = _extent(polygons, rle)
    _check_pixels(rle, extent, bool(polygons))
    return Mask(rle, extent, tuple(map(str, left_out)), any(map(crosses_itself, polygons)))


def outermost(segmentation: Any) -> tuple[float, float] | tuple[()]:
    """Largest x and y of a segmentation of an image of unknown size; of RLE, width and height; (): unknown."""
    parts, _ = _parts(segmentation)
    polygons = [part for part in parts if isinstance(part, list) and len(part) > 1]
    if polygons:
        return max(max(part[0::2]) for part in polygons), max(max(part[1::2]) for part in polygons)
    sizes = [size for part in parts if isinstance(part, dict) and (size := numbers(part.get("size"), 2))]
    return (sizes[0][1], sizes[0][0]) if sizes else ()


def _parts(segmentation: Any) -> tuple[list[list[float] | dict[str, Any]], list[Unusable]]:
    """Polygons, as lists of numbers, and RLEs of a segmentation; and why others are left out."""
    value = structure(segmentation)
    if is_absent(value):
        return [], [Unusable("empty segmentation")]
    if not isinstance(value, (dict, list)):
        return [], [Unusable("segmentation is neither polygons nor RLE", shown(value))]
    parts: list[list[float] | dict[str, Any]] = []
    left_out: list[Unusable] = []
    for part in [value] if _is_outline(value) else _single(value):
        if isinstance(part, dict):
            parts.append(part)
            continue
        try:
            parts.append(_polygon(part))
        except Unusable as error:
            left_out.append(error)
    return parts, left_out


def _single(value: Any) -> Iterator[Any]:
    """The parts of a segmentation, each of which should be a polygon or an RLE, however deep they are nested."""
    if isinstance(value, dict):
        x, y = value.get("all_points_x"), value.get("all_points_y")
        if isinstance(x, list) and isinstance(y, list) and len(x) == len(y):
            value = [one for point in zip(x, y, strict=True) for one in point]
        yield value
        return
    for part in map(structure, value):
        is_nested = isinstance(part, list) and part and isinstance(part[0], list) and not _is_outline(part)
        if isinstance(part, dict) or (is_nested and (len(part[0]) > 3 or isinstance([*part[0], 0][0], (list, dict)))):
            yield from _single(part)
        else:
            yield part


def _is_outline(value: Any) -> bool:
    """Whether a list is a polygon: it begins with a number, or is of points."""
    if not isinstance(value, list) or not value:
        return False
    return number(value[0]) is not None or (len(value) > 2 and None not in map(_point, value))


def _point(value: Any) -> list[float] | None:
    """x, y of [x, y] or {"x": x, "y": y}; None: it is something else."""
    return numbers([value.get("x"), value.get("y")] if isinstance(value, dict) else value, 2)


def _polygon(part: Any) -> list[float]:
    """x, y, x, y, ... of a polygon."""
    if not isinstance(part, list):
        raise Unusable("polygon coordinate is not a finite number", shown(part))
    points = [_point(value) for value in part] if part and isinstance(part[0], (list, dict)) else []
    if len(points) > 2 and None not in points:
        part = [value for point in points if point for value in point]
    # If all values are numbers, as in COCO's own files, they stay as they are; integers do not become floats.
    plain = all(type(value) in (int, float) and abs(value) < 1e15 for value in part)
    read = part if plain else [one for value in part if (one := number(value)) is not None]
    if len(read) < len(part):
        wrong = next(value for value in part if number(value) is None)
        raise Unusable("polygon coordinate is not a finite number", shown(wrong))
    if len(read) < 6:
        raise Unusable("polygon of fewer than 3 points")
    if len(read) % 2:
        raise Unusable("polygon has an x without a y")
    return read


def _plain_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """RLE with integers in place of their text."""
    try:
        plain = dict(rle)
        if "size" in rle:
            plain["size"] = [identifier(side, "side") for side in structure(rle["size"])]
        counts = rle.get("counts")
        counts = structure(counts) if isinstance(counts, str) and "," in counts else counts
        if isinstance(counts, str) and counts[:2] in ("b'", 'b"'):  # no RLE begins so
            counts = plain["counts"] = ast.literal_eval(counts)
        if isinstance(counts, list):
            plain["counts"] = [identifier(count, "count") for count in counts]
    except (Unusable, TypeError, ValueError, SyntaxError):
        return rle
    return plain


def _extent(polygons: list[Any], rle: dict[str, Any]) -> Extent:
    if not polygons:
        x, y, width, height = coco_mask.toBbox(rle).tolist()
        return x, y, x + width, y + height
    x, y = [v for part in polygons for v in part[0::2]], [v for part in polygons for v in part[1::2]]
    return min(x), min(y), max(x), max(y)


def _check_pixels(rle: dict[str, Any], extent: Extent, outlined: bool) -> None:
    """Raises Unusable for a mask without a pixel, or of fractions in place of pixels."""
    area = int(coco_mask.area(rle))
    found = f"x {extent[0]:g} to {extent[2]:g}, y {extent[1]:g} to {extent[3]:g}"
    if area < 2 and outlined and min(extent) >= 0 and max(extent) <= 1:
        raise Unusable("polygon is in fractions of the image, not in pixels", found)
    if not area:
        raise Unusable("mask covers no pixel of the image", found if outlined else "")
