"""Grids to choose from: how many cells, on which levels, for objects of which size."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from solo_dist.config import GridConfig
from solo_dist.data.cells import CellCounts, Placed, count_cells

_DENSITIES = (1.0, 1.5, 2.0)
"""Cells along a side, as multiples of the base recipe's."""
_OVERLAP = 1.25
"""An object up to this factor beyond the limit between two levels is learned on both."""
_LEAST_STEP = 1.5
"""Factor between two limits, if all objects are of nearly one size."""
_LARGEST = 2048
_FEW_COLLIDING, _FEW_LOST = 0.15, 0.005
"""Shares of the objects. One that loses a cell mostly keeps others, as it has up to nine."""


@dataclasses.dataclass(frozen=True)
class GridFacts:
    """A set of grids, and what it does to the objects on a canvas."""

    name: str
    grid: GridConfig
    counts: CellCounts

    @property
    def trouble(self) -> float:
        """Share of objects that lose cells; those that lose all, or never have one, weigh ten times."""
        counts = self.counts
        return (counts.colliding + 10 * counts.lost + 10 * counts.without_positives) / counts.objects

    @property
    def is_good(self) -> bool:
        """Whether hardly any object loses its cells, and each has a level."""
        counts = self.counts
        few = counts.lost <= _FEW_LOST * counts.objects and counts.colliding <= _FEW_COLLIDING * counts.objects
        return few and not counts.uncovered


def compare_grids(placed: Placed, base: GridConfig, base_canvas: tuple[int, int]) -> list[GridFacts]:
    """The base recipe's grids, and grids with ranges from the data, from few cells to many.

    Args:
      placed: the objects on the canvas.
      base: the grids of the base recipe.
      base_canvas: its canvas H, W; its ranges are scaled from there.
    """
    factor = max(placed.canvas) / max(base_canvas)
    scaled = tuple((_scaled(low, factor), _scaled(high, factor)) for low, high in base.scale_ranges)
    ranges = ranges_of(placed.sizes, len(base.levels))
    grids = [("base recipe", dataclasses.replace(base, scale_ranges=scaled))]
    for density in _DENSITIES:
        sizes = tuple(max(1, round(size * density)) for size in base.sizes)
        grids.append((f"{density:g} x cells", dataclasses.replace(base, sizes=sizes, scale_ranges=ranges)))
    return [GridFacts(name, grid, count_cells(placed, grid)) for name, grid in grids]


def _scaled(bound: int, factor: float) -> int:
    """A bound of a range on another canvas; the least and the largest stay."""
    return bound if bound <= 1 or bound >= _LARGEST else round(bound * factor)


def ranges_of(sizes: np.ndarray, levels: int) -> tuple[tuple[int, int], ...]:
    """Scale ranges that give each level an equal share of the objects and leave none out.

    Args:
      sizes: float [n], of the objects on the canvas.
      levels: how many ranges, from small objects to large ones.
    """
    limits: list[float] = []
    for share in np.arange(1, levels) / levels:
        limit = float(np.quantile(sizes, share))
        limits.append(max(limit, limits[-1] * _LEAST_STEP if limits else 1.0))
    lows = [0, *(int(limit / _OVERLAP) for limit in limits)]
    highs = [*(int(np.ceil(limit * _OVERLAP)) for limit in limits), _LARGEST]
    return tuple(zip(lows, highs, strict=True))


def best_grid(compared: Sequence[GridFacts]) -> GridFacts:
    """The good one with the fewest cells; if none is good, the one with the least trouble."""
    good = [one for one in compared if one.is_good]
    if good:
        return min(good, key=lambda one: one.grid.num_cells)
    return min(compared, key=lambda one: (one.trouble, one.grid.num_cells))
