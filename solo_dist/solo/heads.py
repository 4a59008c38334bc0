"""The heads of SOLOv2: category and kernel branches on the grids, and the mask-feature branch.

SOLOv2 paper, section 3.2 and figure 2, with the official code's arrangement (docs/numerics.md, quirks 8 and 9).
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from solo_dist.config import PYRAMID_LEVELS, ModelConfig
from solo_dist.models.layers import Conv, ConvNorm
from solo_dist.models.recompute import Recomputation
from solo_dist.models.resize import append_coordinates, resize_bilinear
from solo_dist.solo.branches import align_levels, apply, build_in_turn, double, hidden, normal, prior_bias, tower


class GridHead(keras.layers.Layer):
    """Category logits and dynamic kernels for every cell of every grid; weights are shared between the levels.

    Args:
      config: the network.
      recompute: keep only the resized feature of each level for the backward pass.
      kernel_groups: A, the factors of a mask; a cell has a kernel of `kernel_channels` for each, one after the other.
    """

    def __init__(self, config: ModelConfig, recompute: bool = False, kernel_groups: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.recompute = recompute
        self.grid = config.grid
        self.coordinates = config.coordinates
        self.shared_tower = config.shared_tower
        self.category_convs = [] if config.shared_tower else tower(config, "category_conv")
        self.kernel_convs = tower(config, "kernel_conv")
        self.category = Conv(config.num_categories, 3, normal(), prior_bias(), name="category")
        self.kernel = Conv(kernel_groups * config.kernel_channels, 3, normal(), name="kernel")

    def build(self, input_shapes: Mapping[str, tuple[Any, ...]]) -> None:
        """Creates the variables."""
        channels = input_shapes[self.grid.levels[0]][-1]
        size = self.grid.sizes[0]
        kernel_shape = build_in_turn(self.kernel_convs, (None, size, size, channels + 2 * self.coordinates))
        self.kernel.build(kernel_shape)
        category_shape = (None, size, size, channels)
        self.category.build(kernel_shape if self.shared_tower else build_in_turn(self.category_convs, category_shape))

    def call(self, pyramid: Mapping[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """P2..P6 -> category_logits [B, N, C] and kernels [B, N, A * E], float32; levels in order, cells row-major."""
        recompute = Recomputation() if training and self.recompute else None
        outputs = [
            self.one_level(feature, size, recompute)
            for feature, size in zip(align_levels(pyramid, self.grid.levels), self.grid.sizes, strict=True)
        ]
        logits, kernels = zip(*outputs, strict=True)
        named = {"category_logits": logits, "kernels": kernels}
        return {name: tf.cast(tf.concat(levels, axis=1), tf.float32) for name, levels in named.items()}

    def one_level(self, feature: tf.Tensor, size: int, recompute: Recomputation | None) -> tuple[tf.Tensor, tf.Tensor]:
        """[B, h, w, channels] -> logits [B, size * size, C] and kernels [B, size * size, A * E]."""
        # Coordinates are appended before the resize, and the category branch does not see them (quirk 8).
        x = resize_bilinear(append_coordinates(feature) if self.coordinates else feature, (size, size))
        if self.shared_tower:
            x = apply(self.kernel_convs, x, recompute)
            logits, kernels = self.category(x), self.kernel(x)
        else:
            logits = apply([*self.category_convs, self.category], x[..., : feature.shape[-1]], recompute)
            kernels = apply([*self.kernel_convs, self.kernel], x, recompute)
        cells = size * size
        return tf.reshape(logits, [-1, cells, logits.shape[-1]]), tf.reshape(kernels, [-1, cells, kernels.shape[-1]])


class MaskHead(keras.layers.Layer):
    """Mask features at a quarter of the canvas.

    unified: P2..P5 are brought to stride 4 by convolutions and doublings, summed, and mixed by a 1x1 convolution.
    separate: the level of each grid is brought to stride 4 in the same way and keeps a map of its own.

    Args:
      config: the network.
      recompute: keep only the input of each level, and of the last convolution, for the backward pass.
    """

    def __init__(self, config: ModelConfig, recompute: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.recompute = recompute
        self.unified = config.mask_features == "unified"
        self.coordinates = config.coordinates
        self.levels = PYRAMID_LEVELS[:4] if self.unified else config.grid.levels
        arguments = {"groups": config.norm_groups, "kernel_initializer": hidden(config)}
        if config.head_deformable != "none" and config.head_deformable_convs == "all":
            # Starts of the official code (quirk 29), which differ from those of the towers.
            kernel = arguments["kernel_initializer"] if config.head_init == "he" else None
            arguments |= {"deformable": config.head_deformable, "offset_initializer": normal()}
            arguments |= {"kernel_initializer": kernel}
        self.convs = {
            level: [
                ConvNorm(config.mask_channels, 3, name=f"{level}_conv{index}", **arguments)
                for index in range(max(1, self.doublings(level)))
            ]
            for level in self.levels
        }
        # The last 1x1 convolution has normalisation and ReLU too (quirk 9).
        self.outputs = [
            ConvNorm(config.kernel_channels, 1, name=name, **arguments)
            for name in (["output"] if self.unified else [f"{level}_output" for level in self.levels])
        ]

    @staticmethod
    def doublings(level: str) -> int:
        """How often a level is doubled on its way to stride 4; P6 comes at the size of P5."""
        return min(PYRAMID_LEVELS.index(level), 3)

    def build(self, input_shapes: Mapping[str, tuple[Any, ...]]) -> None:
        """Creates the variables."""
        for level, convs in self.convs.items():
            *size, channels = input_shapes[level]
            shape = build_in_turn(convs, (*size, channels + 2 * self._has_coordinates(level)))
        for output in self.outputs:
            output.build(shape)

    def _has_coordinates(self, level: str) -> bool:
        return self.coordinates and self.doublings(level) == 3  # the coarsest only (quirk 8)

    def call(self, pyramid: Mapping[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """P2..P6 -> mask_features [B, h, w, E], or mask_features_p2 and so on if the levels are separate.

        They stay in the type of the computation, since the dynamic convolution consumes them at once.
        """
        features = dict(pyramid)
        if "p6" in self.levels:
            features["p6"] = resize_bilinear(features["p6"], features["p5"].shape[1:3])
        recompute = Recomputation() if training and self.recompute else None
        if self.unified:
            return {"mask_features": apply(self.outputs, self._sum_levels(features, recompute), recompute)}
        return {
            f"mask_features_{level}": apply([output], self._to_stride_4(level, features[level], recompute), recompute)
            for level, output in zip(self.levels, self.outputs, strict=True)
        }

    def _sum_levels(self, features: dict[str, tf.Tensor], recompute: Recomputation | None) -> tf.Tensor:
        """Sum of all levels at stride 4. Doubling is linear, so the sum is taken before the last, costliest one."""
        partial = [self._to_stride_8(level, features[level], recompute) for level in self.levels[1:]]
        return self._to_stride_4("p2", features["p2"], recompute) + double(tf.add_n(partial))

    def _to_stride_8(self, level: str, x: tf.Tensor, recompute: Recomputation | None) -> tf.Tensor:
        """A level after its convolutions, doubled after each of them but the last."""
        if self._has_coordinates(level):
            x = append_coordinates(x)
        first, *others = self.convs[level]
        steps: list[Callable] = [first]
        for conv in others:
            steps += [double, conv]
        return apply(steps, x, recompute)

    def _to_stride_4(self, level: str, x: tf.Tensor, recompute: Recomputation | None) -> tf.Tensor:
        x = self._to_stride_8(level, x, recompute)
        return double(x) if self.doublings(level) else x
