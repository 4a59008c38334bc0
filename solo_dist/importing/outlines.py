"""Outlines of masks as polygons, for formats and tools that know no masks.

The exact outline goes along the edges of pixels; drawn as COCO polygons, its rings give the mask back to the pixel.
People who correct a polygon want few points, so a simpler ring is taken if it keeps an IoU of 0.99. It is made from
the exact ring, best for straight sides, or from the middles of its steps, best for slanted and round ones.
"""

import itertools
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
    choices = itertools.product((exact, through_middles), _TOLERANCES)
    candidates = [[simplified(ring, tolerance) for ring in rings] for rings, tolerance in choices]
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


def simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Douglas-Peucker for a closed ring: no point that was dropped is further than the tolerance from the new ring."""
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([ring, ring[:1]])
    kept = {0, far}
    pending = [(0, far), (far, len(ring))]
    while pending:
        first, last = pending.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance:
            middle = first + 1 + worst
            kept.add(middle)
            pending += [(first, middle), (middle, last)]
    return ring[sorted(kept)]


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of each point [n, 2] from the line through start and end, or from the point if they are the same."""
    along, offsets = end - start, points - start
    length = float(np.hypot(*along))
    if length == 0:
        return np.hypot(*offsets.T)
    return np.abs(along[0] * offsets[:, 1] - along[1] * offsets[:, 0]) / length
