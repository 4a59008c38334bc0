"""Outlines that cross themselves, as points in a wrong order make them: COCO's rule cuts holes where they overlap."""

import numpy as np
from pycocotools import mask as coco_mask

_SIDE = 128
"""Pixels of the longer side on which areas are compared, whatever the size of the polygon."""
_SHARE = 0.1
"""Difference of areas that matters; smaller knots are a slip of the hand that nobody sees."""


def crosses_itself(polygon: list[float]) -> bool:
    """Whether a polygon x, y, x, y, ... crosses itself so that its area changes noticeably.

    A part that is walked around in the other direction has a negative area, and one that is walked around twice a
    double one, whereas COCO's rule fills the first and leaves a hole in the second: then the areas differ. They can
    also differ because a polygon is thin, so the edges are compared too, which takes longer.
    """
    points = np.asarray(polygon, float).reshape(-1, 2)
    points = points - points.min(axis=0)
    side = points.max()
    if not side:
        return False
    points *= (_SIDE - 1) / side
    x, y = points.T
    walked = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    filled = float(coco_mask.area(coco_mask.frPyObjects([points.ravel().tolist()], _SIDE, _SIDE))[0])
    return abs(walked - filled) > _SHARE * filled and _has_crossing(points)


def _has_crossing(points: np.ndarray) -> bool:
    """Whether any two edges of a closed ring [n, 2] cross in a point inside both."""
    starts, ends = points, np.roll(points, -1, axis=0)
    for start, end in zip(starts, ends, strict=True):
        apart = _side(start, end, starts) * _side(start, end, ends) < 0
        if (
            apart.any()
            and (_side(starts[apart], ends[apart], start) * _side(starts[apart], ends[apart], end) < 0).any()
        ):
            return True
    return False


def _side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Twice the signed area of the triangle: on which side of the line from start to end the point lies."""
    return (end[..., 0] - start[..., 0]) * (point[..., 1] - start[..., 1]) - (end[..., 1] - start[..., 1]) * (
        point[..., 0] - start[..., 0]
    )
