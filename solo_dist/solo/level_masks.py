"""Code that SOLO and Decoupled SOLO share: every level predicts the masks of its own cells at twice its size.

Quirks 19 and 23 of docs/numerics.md.
"""

from solo_dist.config import MASK_STRIDE, GridConfig
from solo_dist.solo.targets import TargetSpec

# First P2 is halved and P6 is enlarged to the size of P5; then each level is doubled.
MASK_STRIDES = {"p2": 4, "p3": 4, "p4": 8, "p5": 16, "p6": 16}


def level_target_spec(grid: GridConfig) -> TargetSpec:
    """Masks at the resolution of each level's predictions; a cell belongs to the last of its instances."""
    strides = {MASK_STRIDE} | {MASK_STRIDES[level] for level in grid.levels}
    return TargetSpec(tuple(sorted(strides)), one_owner=True)
