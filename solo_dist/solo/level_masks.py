"""What SOLO and Decoupled SOLO have in common: every level predicts the masks of its own cells at twice its size.

Quirks 19 and 23 of docs/numerics.md.
"""

from solo_dist.config import MASK_STRIDE, GridConfig, ModelConfig
from solo_dist.solo.targets import TargetSpec

# First P2 is halved and P6 is enlarged to the size of P5; then each level is doubled.
MASK_STRIDES = {"p2": 4, "p3": 4, "p4": 8, "p5": 16, "p6": 16}


class LevelMasks:
    """The part of `family.Member` that is the same for both."""

    options: frozenset[str] = frozenset()

    def pyramid_levels(self, config: ModelConfig) -> tuple[str, ...]:
        """See `family.Member`."""
        return config.grid.levels

    def target_spec(self, grid: GridConfig) -> TargetSpec:
        """See `family.Member`: masks at the resolution of each level's; a cell belongs to the last of its instances."""
        strides = {MASK_STRIDE} | {MASK_STRIDES[level] for level in grid.levels}
        return TargetSpec(tuple(sorted(strides)), one_owner=True)
