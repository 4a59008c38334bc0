"""SOLO as it was first published: the masks of a level's cells are channels of a 1x1 convolution on that level.

The row of that convolution's weights for a cell is the cell's kernel, so only the rows of chosen cells are multiplied
with the features; all S * S channels of a level are never computed. Shape legend: config.py.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from solo_dist.config import GridConfig, ModelConfig
from solo_dist.models.recompute import Recomputation
from solo_dist.models.resize import append_coordinates
from solo_dist.solo.branches import (
    CategoryHead,
    align_levels,
    apply,
    build_in_turn,
    double,
    normal,
    prior_bias,
    tower,
)
from solo_dist.solo.level_masks import MASK_STRIDES, LevelMasks
from solo_dist.solo.mask_map import MaskMap


class SOLO(LevelMasks):
    """SOLO (Wang et al., ECCV 2020), "vanilla" in that paper.

    Outputs besides category_logits, for each level of the grid: mask_features_p2 and so on, [B,h,w,E + 1] in the type
    of the computation, E = head_channels, at twice the size of the level; kernels_p2 and so on, float32 [B,S*S,E + 1].
    The last feature is 1, so that the last number of a kernel is the bias.
    """

    def heads(self, config: ModelConfig, recompute: bool) -> dict[str, keras.layers.Layer]:
        """See `family.Member`."""
        return {
            "head": CategoryHead(config, recompute, name="head"),
            "mask_head": MaskRowsHead(config, recompute, name="mask_head"),
        }

    def mask_maps(self, outputs: Mapping[str, tf.Tensor], grid: GridConfig) -> list[MaskMap]:
        """See `family.Member`: one map for the cells of each level."""
        return [
            MaskMap(first, MASK_STRIDES[level], (outputs[f"mask_features_{level}"],), (outputs[f"kernels_{level}"],))
            for level, first in zip(grid.levels, grid.first_cells, strict=True)
        ]


class CellRows(keras.layers.Layer):
    """The weights and bias of a 1x1 convolution with a channel for each cell, as kernels; it convolves nothing.

    Args:
      cells: number of output channels.
    """

    def __init__(self, cells: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.cells = cells

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Creates the variables, in the shapes of the convolution, so that its published weights fit."""
        shape = (1, 1, input_shape[-1], self.cells)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=normal(), autocast=False)
        # Masks start at the prior of the categories (quirk 22).
        self.bias = self.add_weight(name="bias", shape=(self.cells,), initializer=prior_bias(), autocast=False)

    def call(self, batch: tf.Tensor) -> tf.Tensor:
        """Number of images B, int32 scalar -> float32 [B, cells, E + 1]."""
        rows = tf.concat([tf.transpose(self.kernel[0, 0]), tf.convert_to_tensor(self.bias)[:, None]], axis=1)
        return tf.broadcast_to(rows[None], [batch, *rows.shape])


class MaskRowsHead(keras.layers.Layer):
    """Mask features of every level from one tower of convolutions, and the kernels of its cells.

    Args:
      config: the network.
      recompute: keep only the feature of each level for the backward pass.
    """

    def __init__(self, config: ModelConfig, recompute: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.recompute = recompute
        self.grid = config.grid
        self.coordinates = config.coordinates
        self.convs = tower(config, "conv")
        self.rows = [
            CellRows(size * size, name=f"{level}_output")
            for level, size in zip(self.grid.levels, self.grid.sizes, strict=True)
        ]

    def build(self, input_shapes: Mapping[str, tuple[Any, ...]]) -> None:
        """Creates the variables."""
        batch, height, width, channels = input_shapes[self.grid.levels[0]]
        build_in_turn(self.convs, (batch, height, width, channels + 2 * self.coordinates))
        for rows in self.rows:
            rows.build((batch, height, width, self.convs[-1].filters))

    def call(self, pyramid: Mapping[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """P2..P6 -> mask_features_p2 [B,h,w,E + 1] and kernels_p2 [B,S*S,E + 1], and so on for the other levels."""
        recompute = Recomputation() if training and self.recompute else None
        # The doubling commutes with the 1x1 convolution that the kernels are (quirk 20).
        steps: list[Callable] = [*self.convs, _append_one, double]
        if self.coordinates:
            steps.insert(0, append_coordinates)
        outputs: dict[str, tf.Tensor] = {}
        for level, feature, rows in zip(
            self.grid.levels, align_levels(pyramid, self.grid.levels), self.rows, strict=True
        ):
            outputs[f"mask_features_{level}"] = apply(steps, feature, recompute)
            outputs[f"kernels_{level}"] = rows(tf.shape(feature)[0])
        return outputs


def _append_one(x: tf.Tensor) -> tf.Tensor:
    return tf.concat([x, tf.ones_like(x[..., :1])], axis=-1)
