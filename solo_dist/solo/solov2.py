"""SOLOv2 as a member of the family: kernels for every cell from one head, mask features from another."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from solo_dist.config import MASK_STRIDE, PYRAMID_LEVELS, GridConfig, ModelConfig
from solo_dist.solo.heads import GridHead, MaskHead
from solo_dist.solo.mask_map import MaskMap
from solo_dist.solo.targets import TargetSpec


class SOLOv2:
    """SOLOv2 (Wang et al., NeurIPS 2020), called Dynamic SOLO in the authors' later paper.

    Outputs besides category_logits: kernels float32 [B,N,E], and mask_features [B,h,w,E] in the type of the
    computation; if `model.mask_features` is separate, mask_features_p2 and so on for the levels of the grid instead.
    """

    options: frozenset[str] = frozenset({"kernel_channels", "mask_channels", "mask_features", "shared_tower"})

    def pyramid_levels(self, config: ModelConfig) -> tuple[str, ...]:
        """See `family.Member`: unified mask features are made of P2..P5, whatever levels carry a grid."""
        unified = PYRAMID_LEVELS[:4] if config.mask_features == "unified" else ()
        return tuple(level for level in PYRAMID_LEVELS if level in unified or level in config.grid.levels)

    def heads(self, config: ModelConfig, recompute: bool) -> dict[str, keras.layers.Layer]:
        """See `family.Member`."""
        return {
            "head": GridHead(config, recompute, name="head"),
            "mask_head": MaskHead(config, recompute, name="mask_head"),
        }

    def mask_maps(self, outputs: Mapping[str, tf.Tensor], grid: GridConfig) -> list[MaskMap]:
        """See `family.Member`: one map for all cells, or one for the cells of each level."""
        kernels = outputs["kernels"]
        if "mask_features" in outputs:
            return [MaskMap(0, MASK_STRIDE, (outputs["mask_features"],), (kernels,))]
        sizes = [size * size for size in grid.sizes]
        return [
            MaskMap(first, MASK_STRIDE, (outputs[f"mask_features_{level}"],), (own,))
            for level, first, own in zip(grid.levels, grid.first_cells, tf.split(kernels, sizes, axis=1), strict=True)
        ]

    def target_spec(self, grid: GridConfig) -> TargetSpec:
        """See `family.Member`: masks at a quarter of the canvas, and colliding instances share their cells."""
        del grid
        return TargetSpec()
