"""Tiles: which windows of an image, and what the flags may say."""

import itertools

import pytest

from solo_dist.data.tiling import Tiling, Window, parse_tiling
from solo_dist.errors import ConfigError

SIDES = [1, 63, 64, 65, 100, 127, 128, 129, 500, 1001, 3000]


@pytest.mark.parametrize(("tile", "overlap"), [(64, 0.0), (100, 0.2), (128, 0.5), (333, 0.31)])
@pytest.mark.parametrize("size", [*zip(SIDES, reversed(SIDES), strict=True)])
def test_tiles_cover_the_image_and_overlap_enough(size, tile, overlap):
    windows = Tiling(tile, tile + 7, overlap).windows(size)
    for axis, side_of_tile in ((0, tile), (1, tile + 7)):
        assert {window[axis + 2] for window in windows} == {min(side_of_tile, size[axis])}
        starts = sorted({window[axis] for window in windows})
        assert starts[0] == 0 and starts[-1] + min(side_of_tile, size[axis]) == size[axis]
        for one, next_one in itertools.pairwise(starts):
            assert 0 < next_one - one <= side_of_tile - overlap * side_of_tile
    assert windows == sorted(set(windows))


def test_no_more_tiles_than_needed():
    assert len(Tiling(512, 512, 0.0).windows((1024, 1536))) == 6
    assert len(Tiling(512, 512, 0.0).windows((1025, 1536))) == 9
    assert Tiling(500, 500, 0.5).windows((500, 1000)) == [(0, 0, 500, 500), (0, 250, 500, 500), (0, 500, 500, 500)]


def test_common_rectangle():
    window = Window(10, 20, 30, 40)
    assert window.common(Window(25, 0, 100, 35)) == (25, 20, 15, 15)
    assert 0 in window.common(Window(40, 20, 5, 5))[2:] and 0 in window.common(Window(0, 70, 90, 5))[2:]


@pytest.mark.parametrize(
    ("tile", "overlap", "wanted"),
    [
        ("", None, None),
        ("512x640", None, Tiling(512, 640, 0.2)),
        ("64x64", 0.0, Tiling(64, 64, 0.0)),
        ("128x256", 0.5, Tiling(128, 256, 0.5)),
    ],
)
def test_flags(tile, overlap, wanted):
    assert parse_tiling(tile, overlap) == wanted


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        ("", 0.2, "give --tile=HEIGHTxWIDTH too"),
        ("512", None, "must be HEIGHTxWIDTH in pixels"),
        ("0x512", None, "less than 64 pixels from tile"),
        ("512x100", 0.5, "less than 64 pixels from tile"),
        ("512x512", 1.0, "less than 64 pixels from tile"),
        ("512x512", -0.1, "less than 64 pixels from tile"),
        ("512x512", float("nan"), "less than 64 pixels from tile"),
    ],
)
def test_flags_that_cannot_be(tile, overlap, message):
    with pytest.raises(ConfigError, match=message):
        parse_tiling(tile, overlap)
