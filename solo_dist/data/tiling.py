"""Large images as overlapping tiles: the windows that the shard tool cuts out and that prediction looks at.

tiling = parse_tiling("512x512", overlap=0.2)
tiling.windows((3000, 4000))  # 80 windows, row by row
"""

import dataclasses
import math
from typing import NamedTuple

from solo_dist.config import parse_size
from solo_dist.errors import ConfigError

OVERLAP = 0.2
"""Share of a tile that its neighbour shows too, unless it is given."""
_LEAST_STEP = 64
"""Pixels from one tile to the next. With fewer, a large image would become more than a million tiles."""


class Window(NamedTuple):
    """A rectangle of whole pixels of an image."""

    y: int
    x: int
    height: int
    width: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Its place in an array [H0, W0, ...]."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def pixels_of(self, outer: "Window") -> tuple[slice, slice]:
        """The place of what `outer` shows of it in an array of the pixels of `outer`."""
        inside = self.common(outer)
        return Window(inside.y - outer.y, inside.x - outer.x, inside.height, inside.width).pixels

    def common(self, other: "Window") -> "Window":
        """The rectangle that is in both, with a height or width of 0 if there is none."""
        y, x = max(self.y, other.y), max(self.x, other.x)
        bottom = min(self.y + self.height, other.y + other.height)
        right = min(self.x + self.width, other.x + other.width)
        return Window(y, x, max(0, bottom - y), max(0, right - x))


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How images are divided."""

    height: int
    width: int
    overlap: float
    """Share of a tile that its neighbour shows too, at least."""

    def __str__(self) -> str:
        return f"{self.height}x{self.width}, overlap {self.overlap:g}"

    def windows(self, size: tuple[int, int]) -> list[Window]:
        """The tiles of an image of `size`, height and width, row by row.

        They are spread evenly from edge to edge, so their overlap can be larger than the least one. An image that is
        smaller than a tile along an axis is not divided along it.
        """
        height, width = min(self.height, size[0]), min(self.width, size[1])
        rows, columns = self._starts(size[0], self.height), self._starts(size[1], self.width)
        return [Window(y, x, height, width) for y in rows for x in columns]

    def _starts(self, side: int, tile: int) -> list[int]:
        gaps = max(0, -(-(side - tile) // _step(tile, self.overlap)))
        return [i * (side - tile) // gaps for i in range(gaps + 1)] if gaps else [0]


def parse_tiling(tile: str, overlap: float | None) -> Tiling | None:
    """The flags --tile=HEIGHTxWIDTH and --overlap; None if there is no --tile. Raises ConfigError."""
    if not tile:
        if overlap is not None:
            raise ConfigError("--overlap is that of tiles; give --tile=HEIGHTxWIDTH too.")
        return None
    overlap = OVERLAP if overlap is None else overlap
    size = parse_size(tile)
    if size is None:
        raise ConfigError(f"--tile={tile} must be HEIGHTxWIDTH in pixels, for example 512x512.")
    if not 0 <= overlap < 1 or _step(min(size), overlap) < _LEAST_STEP:
        raise ConfigError(
            f"--tile={tile} with --overlap={overlap:g} has less than {_LEAST_STEP} pixels from tile to tile; "
            "give larger tiles, or an overlap such as 0.2."
        )
    return Tiling(*size, overlap)


def _step(tile: int, overlap: float) -> int:
    """Pixels from one tile to the next, at most."""
    return tile - math.ceil(tile * overlap)
