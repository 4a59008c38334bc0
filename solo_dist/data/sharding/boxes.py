"""Boxes of annotations: the official form, and whether one is around its mask or what it seems to be instead."""

from collections.abc import Iterable, Sequence

import numpy as np

from solo_dist.data.sharding.segmentations import Extent

_PIXELS, _SHARE = 2, 0.1
"""What an edge may be off: so many pixels, or this share of the side."""


def official_boxes(boxes_of_json: Iterable[Sequence[float]]) -> np.ndarray:
    """x, y, width, height -> float32 [m, 4] x1, y1, x2, y2, the last pixels inclusive: the official x + width - 1."""
    boxes = np.array([*boxes_of_json], np.float32).reshape(-1, 4)
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:] - 1
    return boxes


def misfit(box: list[float], extents: list[Extent]) -> str:
    """Why a box x, y, width, height is around none of the extents of one mask; "": it is around one of them.

    Args:
      box: as it is in the json, in pixels of the image.
      extents: of the mask, as drawn and as cut off at the edge of the image.
    """
    x, y, width, height = box
    readings = {
        "": (x, y, x + width, y + height),
        ": it reads as x1, y1, x2, y2": (x, y, width, height),
        ": it reads as its centre and size": (x - width / 2, y - height / 2, x + width / 2, y + height / 2),
        ": it reads as y, x, height, width": (y, x, y + height, x + width),
        ": it reads as y1, x1, y2, x2": (y, x, height, width),
    }
    for words, read in readings.items():
        if any(_agree(read, extent) for extent in extents):
            return f"box is not around its mask{words}" if words else ""
    if width > 0 and height > 0 and _agree(_rescaled(readings[""], extents[0]), extents[0]):
        return "box is not around its mask: it is that of an image of another size"
    return "box is not around its mask"


def _rescaled(box: Extent, extent: Extent) -> Extent:
    """The box, with the scale about the origin that gives it the size of the extent."""
    x, y = ((extent[axis + 2] - extent[axis]) / (box[axis + 2] - box[axis]) for axis in (0, 1))
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def _agree(box: Extent, extent: Extent) -> bool:
    limits = [max(_PIXELS, _SHARE * (extent[axis + 2] - extent[axis])) for axis in (0, 1)] * 2
    return all(abs(one - other) <= limit for one, other, limit in zip(box, extent, limits, strict=True))
