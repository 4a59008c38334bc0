"""Outlines of masks as polygons, for formats and tools without masks.

The exact outline goes along the edges of pixels; drawn as COCO polygons, its rings give the mask back to the pixel.
People who correct a polygon want few points, so a simpler ring is taken if it keeps an IoU of 0.99. It is made from
the exact ring, best for straight sides, or from the middles of its steps, best for slanted and round ones.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from solo_dist.importing.dataset import decode

LEAST_IOU = 0.991
_TOLERANCES = (2.0, 1.4, 1.0, 0.6, 0.5, 0.4)
"""Pixels that a simpler ring may be away from the first one."""

Step = tuple[int, int]


def simple_outlines(
    rle: dict[str, Any], drawn: Callable[[list[np.ndarray]], dict[str, Any]]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outer rings and holes of a mask, float [n, 2] of x, y, with as few points as keep an IoU of 0.99.

    Args:
      rle: a mask with at least one pixel.
      drawn: how a reader of the format turns all rings, outer ones first, into a mask.
    """
    outer, holes = _unit_steps(decode(rle))
    exact = [_without_straight_points(ring) for ring in outer + holes]
    through_middles = [(ring + np.roll(ring, -1, axis=0)) / 2 for ring in outer + holes]
    candidates = []
    for rings in (exact, through_middles):
        matters = [significance(ring, min(_TOLERANCES)) for ring in rings]
        for tolerance in _TOLERANCES:
            candidates.append([ring[one > tolerance] for ring, one in zip(rings, matters, strict=True)])
    for rings in sorted(candidates, key=lambda rings: sum(map(len, rings))):
        if all(len(ring) > 2 for ring in rings) and _iou(drawn(rings), rle) >= LEAST_IOU:
            return rings[: len(outer)], rings[len(outer) :]
    return exact[: len(outer)], exact[len(outer) :]


def _iou(first: dict[str, Any], second: dict[str, Any]) -> float:
    return float(coco_mask.iou([first], [second], [False])[0, 0])


def outlines(mask: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outer rings, clockwise, and holes, counter-clockwise, along the edges of pixels; float [n, 2] of x, y each."""
    outer, holes = _unit_steps(mask)
    return [_without_straight_points(ring) for ring in outer], [_without_straight_points(ring) for ring in holes]


def _unit_steps(mask: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """As `outlines`, with a point at every pixel."""
    outer: list[np.ndarray] = []
    holes: list[np.ndarray] = []
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return outer, holes
    steps = _edges(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    while steps:
        ring = _walk(steps) + (columns[0], rows[0])
        (outer if _signed_area(ring) > 0 else holes).append(ring)
    return outer, holes


def _edges(mask: np.ndarray) -> dict[Step, list[Step]]:
    """Steps along edges between inside and outside, the inside at the right hand: start -> ends."""
    padded = np.pad(mask.astype(bool), 1)
    inside = padded[1:-1, 1:-1]
    steps: dict[Step, list[Step]] = {}
    for neighbour, (x0, y0), (x1, y1) in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(inside & ~neighbour).tolist():
            steps.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    return steps


def _walk(steps: dict[Step, list[Step]]) -> np.ndarray:
    """Takes one closed ring out of the steps; at a point where two pixels touch it turns right, around one of them."""
    start = here = next(iter(steps))
    direction = (0, 0)
    ring = []
    while True:
        ring.append(here)
        ends = steps[here]
        right = (here[0] - direction[1], here[1] + direction[0])
        there = right if right in ends else ends[0]
        ends.remove(there)
        if not ends:
            del steps[here]
        direction, here = (there[0] - here[0], there[1] - here[1]), there
        if here == start:
            return np.array(ring, np.float64)


def _without_straight_points(ring: np.ndarray) -> np.ndarray:
    forward, backward = np.roll(ring, -1, axis=0) - ring, ring - np.roll(ring, 1, axis=0)
    return ring[np.any(forward != backward, axis=1)]


def _signed_area(ring: np.ndarray) -> float:
    """Above 0: clockwise on the screen, with y downwards."""
    x, y = ring.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def significance(ring: np.ndarray, least: float) -> np.ndarray:
    """The tolerance above which each point of a closed ring [n, 2] is left out, by Douglas-Peucker.

    Returns:
      float [n]. The points above a tolerance of at least `least` are a simpler ring, and no other point is further than
      the tolerance from it.
    """
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([ring, ring[:1]])
    matters = np.zeros(len(ring))
    matters[[0, far]] = np.inf
    pending = [(0, far, np.inf), (far, len(ring), np.inf)]
    while pending:
        first, last, above = pending.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        worst = int(distances.argmax())
        # A point counts only if those that its side was cut at count too.
        distance = min(above, float(distances[worst]))
        if distance > least:
            middle = first + 1 + worst
            matters[middle] = distance
            pending += [(first, middle, distance), (middle, last, distance)]
    return matters


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of each point [n, 2] from the line through start and end, or from the point if they are the same."""
    along, offsets = end - start, points - start
    length = float(np.hypot(*along))
    if length == 0:
        return np.hypot(*offsets.T)
    return np.abs(along[0] * offsets[:, 1] - along[1] * offsets[:, 0]) / length
