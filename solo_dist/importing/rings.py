"""One closed ring for several parts and holes, as YOLO's rows need it, and the parts of such a ring.

Parts are joined by bridges: a bridge is walked once in each direction, so it encloses nothing. Ultralytics'
converters write objects of several parts in this way.
"""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from solo_dist.importing.dataset import area, decode, encode
from solo_dist.importing.labelme_shapes import polygon_rle


def join_rings(rings: list[np.ndarray]) -> np.ndarray:
    """Closed rings [n_i, 2] -> one ring; each is joined to those before it at the closest pair of points."""
    joined = rings[0]
    for ring in rings[1:]:
        distances = ((joined[:, None] - ring[None]) ** 2).sum(axis=-1)
        here, there = np.unravel_index(np.argmin(distances), distances.shape)
        walk = [joined[: here + 1], ring[there:], ring[: there + 1], joined[here:]]
        joined = np.concatenate(walk)
    return joined


def split_ring(ring: np.ndarray) -> list[np.ndarray]:
    """A ring [n, 2] -> its parts without the bridges, which are edges that are walked in both directions."""
    points = [tuple(point) for point in ring]
    points = [point for point, before in zip(points, [points[-1], *points], strict=False) if point != before]
    edges = list(zip(points, points[1:] + points[:1], strict=True))
    following = {index: (index + 1) % len(edges) for index in range(len(edges))}
    preceding = {after: before for before, after in following.items()}
    unpaired: dict[tuple, list[int]] = {}
    for index, (start, end) in enumerate(edges):
        if unpaired.get((end, start)):
            _cut_out(unpaired[end, start].pop(), index, following, preceding)
        else:
            unpaired.setdefault((start, end), []).append(index)
    return _loops(edges, following)


def _cut_out(forth: int, back: int, following: dict[int, int], preceding: dict[int, int]) -> None:
    """Links what comes before one direction of a bridge to what comes after the other direction."""
    for one, other in ((forth, back), (back, forth)):
        before, after = preceding[one], following[other]
        following[before], preceding[after] = after, before
    for edge in (forth, back):
        del following[edge], preceding[edge]


def _loops(edges: list[tuple], following: dict[int, int]) -> list[np.ndarray]:
    parts = []
    remaining = dict(following)
    while remaining:
        first = next(iter(remaining))
        points, edge = [], first
        while edge in remaining:
            points.append(edges[edge][0])
            edge = remaining.pop(edge)
        if len(points) > 2:
            parts.append(np.array(points))
    return parts


def ring_rle(ring: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """Compressed RLE of a ring [n, 2] in pixels, with its bridges cut out.

    A part inside another one is a hole, a part inside a hole is filled again; parts that overlap are united.
    Raises Unusable if no part has an area.
    """
    parts = split_ring(ring)
    if len(parts) < 2:
        return polygon_rle(parts[0] if parts else ring, height, width)
    rles = sorted((polygon_rle(part, height, width) for part in parts), key=area, reverse=True)
    mask = np.zeros((height, width), bool)
    for index, rle in enumerate(rles):
        around = sum(_is_inside(rle, other) for other in rles[:index])
        mask = mask & ~decode(rle) if around % 2 else mask | decode(rle)
    return encode(mask)


def _is_inside(rle: dict[str, Any], other: dict[str, Any]) -> bool:
    return area(coco_mask.merge([rle, other], intersect=True)) == area(rle) < area(other)
