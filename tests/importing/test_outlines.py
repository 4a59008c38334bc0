"""Outlines of masks: exact ones give the mask back to the pixel, rings with bridges come apart as they were joined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from solo_dist.importing.dataset import decode, encode
from solo_dist.importing.outlines import LEAST_IOU, outlines, significance, simple_outlines
from solo_dist.importing.rings import join_rings, ring_rle, split_ring
from tests.importing.conftest import blob, iou


def filled(ring, height, width):
    return decode(coco_mask.frPyObjects([ring.ravel().tolist()], height, width)[0])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 14), st.integers(1, 14), st.floats(0.05, 1))
def test_outlines_of_any_mask_give_it_back(seed, height, width, density):
    mask = np.random.default_rng(seed).random((height, width)) < density
    outer, holes = outlines(mask)
    found = np.zeros_like(mask)
    for ring in outer:
        found |= filled(ring, height, width)
    for ring in holes:
        found &= ~filled(ring, height, width)
    islands_in_holes = found != mask
    assert not islands_in_holes.any() or (len(outer) > 1 and len(holes) > 0)
    parity = sum(filled(ring, height, width).astype(int) for ring in outer + holes) % 2 if mask.any() else mask
    np.testing.assert_array_equal(parity == 1, mask)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 14), st.integers(2, 14), st.floats(0.05, 1))
def test_one_ring_for_all_parts_and_holes_gives_the_mask_back(seed, height, width, density):
    mask = np.random.default_rng(seed).random((height, width)) < density
    if not mask.any():
        return
    outer, holes = outlines(mask)
    np.testing.assert_array_equal(decode(ring_rle(join_rings(outer + holes), height, width)), mask)


def test_bridges_of_one_walk_around_the_middle_parts_are_found():
    """As Ultralytics' converter writes three parts: to the last and back, around half of the middle one each time."""
    first, middle, last = (np.array([[0, 0], [4, 0], [4, 4], [0, 4]]) + (x, 0) for x in (0, 10, 20))
    ring = np.concatenate([first[[1, 2, 3, 0, 1]], middle[[0, 1]], last[[0, 1, 2, 3, 0]], middle[[1, 2, 3, 0]]]).astype(
        float
    )
    parts = split_ring(ring)
    assert sorted(sorted(map(tuple, part)) for part in parts) == [
        sorted(map(tuple, part.astype(float))) for part in (first, middle, last)
    ]


def test_overlapping_parts_are_united_and_a_part_inside_is_a_hole():
    def square(x, y, side):
        return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], float)

    united = decode(ring_rle(join_rings([square(2, 2, 8), square(6, 6, 8)]), 20, 20))
    assert united.sum() == 64 + 64 - 16 and united[8, 8]
    hollow = decode(ring_rle(join_rings([square(2, 2, 12), square(5, 5, 4)]), 20, 20))
    assert hollow.sum() == 144 - 16 and not hollow[6, 6]
    island = decode(ring_rle(join_rings([square(2, 2, 12), square(4, 4, 7), square(6, 6, 2)]), 20, 20))
    assert island.sum() == 144 - 49 + 4 and island[6, 6]


@pytest.mark.parametrize("seed", range(12))
def test_simple_outlines_keep_the_mask(seed):
    mask = blob(60, 80, seed, pieces=1 + seed % 3, hole=seed % 2 == 1)

    def drawn(rings):
        return ring_rle(join_rings(rings), 60, 80)

    outer, holes = simple_outlines(encode(mask), drawn)
    assert iou(decode(drawn(outer + holes)), mask) >= LEAST_IOU


def test_a_large_disc_needs_few_points():
    rows, columns = np.mgrid[:100, :100]
    mask = (rows - 50) ** 2 + (columns - 50) ** 2 < 40**2
    outer, holes = simple_outlines(encode(mask), lambda rings: ring_rle(join_rings(rings), 100, 100))
    assert len(outer) == 1 and not holes and len(outer[0]) < 50
    assert len(outlines(mask)[0][0]) > 150


def douglas_peucker(points, tolerance):
    """The textbook's recursion for an open line."""
    start, end = points[0], points[-1]
    along = end - start
    if len(points) < 3:
        return [start, end]
    if np.hypot(*along):
        distances = np.abs(along[0] * (points - start)[:, 1] - along[1] * (points - start)[:, 0]) / np.hypot(*along)
    else:
        distances = np.hypot(*(points - start).T)
    worst = int(np.argmax(distances[1:-1])) + 1
    if distances[worst] <= tolerance:
        return [start, end]
    return douglas_peucker(points[: worst + 1], tolerance)[:-1] + douglas_peucker(points[worst:], tolerance)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tolerance", [0.4, 1.0, 3.0])
def test_significant_points_are_those_of_the_recursion(seed, tolerance):
    ring = outlines(blob(60, 80, seed))[0][0]
    ring = (ring + np.roll(ring, -1, axis=0)) / 2
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([ring, ring[:1]])
    wanted = douglas_peucker(closed[: far + 1], tolerance)[:-1] + douglas_peucker(closed[far:], tolerance)[:-1]
    np.testing.assert_array_equal(ring[significance(ring, 0.4) > tolerance], np.array(wanted))


def test_simpler_rings_stay_within_the_tolerance():
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = 50 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    few = circle[significance(circle, 1.0) > 1.0]
    middles = (few + np.roll(few, -1, axis=0)) / 2
    assert len(few) < 30 and np.hypot(*middles.T).min() > 49 - 1e-9
