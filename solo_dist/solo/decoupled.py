"""Decoupled SOLO: the mask of a cell is the product of two sigmoids, one for its column and one for its row.

A level has S maps for columns and S for rows instead of S * S masks. A kernel chooses one of them: it is 1 for the
column, or row, of the cell and 0 for the others. Shape legend: config.py.
"""

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from solo_dist.config import GridConfig, ModelConfig
from solo_dist.models.layers import Conv
from solo_dist.models.recompute import Recomputation
from solo_dist.models.resize import append_coordinates
from solo_dist.solo.branches import (
    CategoryHead,
    align_levels,
    build_in_turn,
    double,
    normal,
    prior_bias,
    tower,
)
from solo_dist.solo.level_masks import MASK_STRIDES, LevelMasks
from solo_dist.solo.mask_map import MaskMap


class DecoupledSOLO(LevelMasks):
    """Decoupled SOLO (Wang et al., ECCV 2020, section 4), and its light form.

    Outputs besides category_logits, for each level of the grid: mask_x_p2, mask_y_p2 and so on, logits [B,h,w,S] in the
    type of the computation, at twice the size of the level.

    Args:
      towers: the coordinates that each tower of convolutions sees: ("x", "y"), or ("xy",) for the light form.
    """

    def __init__(self, towers: tuple[str, ...]):
        self.towers = towers

    def heads(self, config: ModelConfig, recompute: bool) -> dict[str, keras.layers.Layer]:
        """See `family.Member`."""
        return {
            "head": CategoryHead(config, recompute, name="head"),
            "mask_head": AxesHead(config, self.towers, recompute, name="mask_head"),
        }

    def mask_maps(self, outputs: Mapping[str, tf.Tensor], grid: GridConfig) -> list[MaskMap]:
        """See `family.Member`: one map of two factors for the cells of each level."""
        maps = []
        for level, size, first in zip(grid.levels, grid.sizes, grid.first_cells, strict=True):
            features = tuple(outputs[f"mask_{axis}_{level}"] for axis in "xy")
            cells = np.arange(size * size)
            # Cells are row-major: x is the column, y is the row (quirk 24).
            chosen = (np.eye(size, dtype=np.float32)[index] for index in (cells % size, cells // size))
            shape = [tf.shape(features[0])[0], size * size, size]
            kernels = tuple(tf.broadcast_to(kernel[None], shape) for kernel in chosen)
            maps.append(MaskMap(first, MASK_STRIDES[level], features, kernels))
        return maps


class AxesHead(keras.layers.Layer):
    """Maps for columns and rows of every level.

    Args:
      config: the network.
      towers: as for `DecoupledSOLO`.
      recompute: keep only the feature of each level for the backward pass.
    """

    def __init__(self, config: ModelConfig, towers: tuple[str, ...], recompute: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.recompute = recompute
        self.grid = config.grid
        self.coordinates = config.coordinates
        self.towers = {axes: tower(config, f"conv_{axes}" if len(towers) > 1 else "conv") for axes in towers}
        self.outputs = {
            f"{axis}_{level}": Conv(size, 3, normal(), prior_bias(), name=f"{level}_output_{axis}")
            for axis in "xy"
            for level, size in zip(self.grid.levels, self.grid.sizes, strict=True)
        }

    def build(self, input_shapes: Mapping[str, tuple[Any, ...]]) -> None:
        """Creates the variables."""
        *size, channels = input_shapes[self.grid.levels[0]]
        for axes, convs in self.towers.items():
            build_in_turn(convs, (*size, channels + len(axes) * self.coordinates))
            for name, output in self.outputs.items():
                if name[0] in axes:
                    output.build((*size, convs[-1].filters))

    def call(self, pyramid: Mapping[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """P2..P6 -> mask_x_p2 and mask_y_p2 [B,h,w,S], and so on for the other levels."""
        recompute = Recomputation() if training and self.recompute else None
        outputs: dict[str, tf.Tensor] = {}
        for level, feature in zip(self.grid.levels, align_levels(pyramid, self.grid.levels), strict=True):
            for axes, convs in self.towers.items():
                run = functools.partial(self._maps, level, axes)
                layers = [*convs, *(self.outputs[f"{axis}_{level}"] for axis in axes)]
                maps = run(feature) if recompute is None else recompute(run, layers, feature)
                outputs |= {f"mask_{axis}_{level}": logits for axis, logits in zip(axes, maps, strict=True)}
        return outputs

    def _maps(self, level: str, axes: str, x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The maps of one tower on one level, in the order of the axes."""
        if self.coordinates:
            x = append_coordinates(x, axes)
        # Doubled before the 3x3 convolutions of the outputs, which do not commute with it (quirk 20).
        for conv in self.towers[axes]:
            x = conv(x)
        x = double(x)
        return tuple(self.outputs[f"{axis}_{level}"](x) for axis in axes)
