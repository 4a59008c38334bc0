"""Masks of LabelMe's shapes.

Coordinates are in pixels of the upright image, 0 at the left or upper edge of the first pixel; a pixel is inside if its
centre is. (LabelMe's own drawing adds the pixels that the outline touches; COCO's polygons do not.)
"""

import base64
import binascii
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image

from solo_dist.coco_values import finite
from solo_dist.data.sharding.annotation import CROSSES_ITSELF, REACHES_OUT
from solo_dist.data.sharding.crossings import crosses_itself
from solo_dist.data.sharding.segmentations import reaches_out
from solo_dist.errors import Unusable
from solo_dist.importing.dataset import checked, encode
from solo_dist.masks.rle import segmentation_to_rle

WITHOUT_AREA = ("line", "linestrip", "point", "points")
"""Shapes that are no masks."""


def shape_rle(shape: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Compressed RLE of one entry of `shapes`, of the upright image's size.

    Raises:
      Unusable: the shape has no area, is damaged, or lies outside the image.
    """
    kind = shape.get("shape_type") or "polygon"
    if kind in WITHOUT_AREA:
        raise Unusable(f"shape {kind} has no area")
    points = _points(shape.get("points"))
    if kind == "mask":
        rle = _mask(points, shape.get("mask"), height, width)
    elif kind == "circle":
        rle = _circle(points, height, width)
    elif kind in ("polygon", "oriented_rectangle", "rotation"):  # the last one is X-AnyLabeling's
        rle = polygon_rle(points, height, width)
    elif kind == "rectangle":
        rle = polygon_rle(_corners(points), height, width)
    else:
        raise Unusable("unknown shape_type", str(kind))
    if points.min() >= 0 and points.max() <= 1 and kind != "mask":
        raise Unusable("points are in fractions of the image, not in pixels", f"at most {points.max():g}")
    return checked(rle)


def shape_notices(shape: dict[str, Any], height: int, width: int) -> Iterator[str]:
    """What seems to be wrong with a shape of which `shape_rle` makes a mask."""
    points, kind = _points(shape["points"]), shape.get("shape_type") or "polygon"
    if kind in ("polygon", "rectangle") and reaches_out((*points.min(axis=0), *points.max(axis=0)), height, width):
        yield REACHES_OUT
    if kind == "polygon" and crosses_itself(points.ravel().tolist()):
        yield CROSSES_ITSELF


def polygon_rle(points: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """Compressed RLE of one polygon, float [n, 2] of x, y. Raises Unusable."""
    if len(points) < 3:
        raise Unusable("polygon of fewer than 3 points")
    try:
        return segmentation_to_rle([points.ravel().tolist()], height, width)
    except ValueError as error:
        raise Unusable(str(error)) from error


def _points(points: Any) -> np.ndarray:
    if not isinstance(points, list) or not points:
        raise Unusable("shape has no points")
    if not all(isinstance(point, (list, tuple)) and len(point) == 2 for point in points):
        raise Unusable("point is not a pair of numbers")
    return np.array([[finite(value) for value in point] for point in points])


def _corners(points: np.ndarray) -> np.ndarray:
    """Two opposite corners in any order -> four; newer tools write all four themselves."""
    if len(points) == 4:
        return points
    if len(points) != 2:
        raise Unusable("rectangle has neither 2 nor 4 points")
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _circle(points: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """From the centre and a point on the circle."""
    if len(points) != 2:
        raise Unusable("circle has not 2 points")
    (x, y), edge = points[0], points[1]
    columns, rows = np.arange(width) + 0.5 - x, np.arange(height) + 0.5 - y
    return encode(columns**2 + rows[:, None] ** 2 <= np.sum((edge - points[0]) ** 2))


def _mask(points: np.ndarray, png: Any, height: int, width: int) -> dict[str, Any]:
    """A PNG in base64 whose first pixel is at the first point."""
    if not isinstance(png, str) or not png:
        raise Unusable("shape mask has no mask")
    try:
        with PIL.Image.open(io.BytesIO(base64.b64decode(png))) as image:
            patch = np.asarray(image if image.mode in ("1", "L", "P") else image.convert("L")) != 0
    except (binascii.Error, OSError, SyntaxError, ValueError) as error:
        raise Unusable("mask does not decode", str(error)[:60]) from error
    x, y = (round(value) for value in points[0])
    mask = np.zeros((height, width), bool)
    top, left = max(y, 0), max(x, 0)
    part = patch[top - y : max(height - y, 0), left - x : max(width - x, 0)]
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return encode(mask)
