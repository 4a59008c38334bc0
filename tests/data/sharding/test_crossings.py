"""Polygons that cross themselves, and others that only look as if."""

import math

import pytest

from solo_dist.data.sharding.crossings import crosses_itself

SQUARE = [10, 10, 50, 10, 50, 50, 10, 50]
STAR = [v for i in range(5) for v in (40 + 30 * math.cos(4 * math.pi * i / 5), 40 + 30 * math.sin(4 * math.pi * i / 5))]
CASES = {
    "square": (SQUARE, False),
    "square, counter-clockwise": (SQUARE[6:] + SQUARE[4:6] + SQUARE[2:4] + SQUARE[:2], False),
    "half outside of the image": ([-30, 10, 50, 10, 50, 50, -30, 50], False),
    "two corners exchanged": ([10, 10, 50, 50, 50, 10, 10, 50], True),
    "a loop of its own": ([0, 0, 40, 0, 40, 40, 20, 40, 20, 20, 60, 20, 60, 60, 0, 60], True),
    "star walked in one go": (STAR, True),
    "walked around twice": (SQUARE + [x + 0.5 for x in SQUARE], True),
    "hole behind a bridge": ([0, 0, 60, 0, 60, 60, 0, 60, 0, 0, 20, 20, 20, 40, 40, 40, 40, 20, 20, 20], False),
    "knot of a pixel": ([0, 0, 100, 0, 100, 100, 1, 100, 0, 99, 1, 99, 0, 100], False),
    "thin, and not crossed": ([0, 0, 200, 1, 200, 2, 0, 1], False),
    "line": ([5, 5, 20, 20, 40, 40], False),
    "point": ([5, 5, 5, 5, 5, 5], False),
}


@pytest.mark.parametrize("factor", [1, 0.1, 20])
@pytest.mark.parametrize("name", CASES)
def test_only_crossings_that_matter_are_found(name, factor):
    polygon, wanted = CASES[name]
    assert crosses_itself([factor * value for value in polygon]) == wanted
