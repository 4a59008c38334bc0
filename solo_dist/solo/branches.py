"""Layers that the heads of several members of the family use, and the category branch as a head of its own.

Source: the official SOLO code; numbers of quirks are those of docs/numerics.md. Shape legend: config.py.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from solo_dist.config import ModelConfig
from solo_dist.models.layers import Conv, ConvNorm
from solo_dist.models.recompute import Recomputation
from solo_dist.models.resize import resize_bilinear

PRIOR = 0.01  # probability of a category at every cell before training (focal loss paper, section 4.1)


def normal() -> keras.initializers.Initializer:
    """The initializer of convolutions in the official heads."""
    return keras.initializers.RandomNormal(stddev=0.01)


def prior_bias() -> keras.initializers.Initializer:
    """The initial bias, with which every output has the probability PRIOR."""
    return keras.initializers.Constant(float(-np.log((1 - PRIOR) / PRIOR)))


def hidden(config: ModelConfig) -> Any:
    """The initializer of convolutions that a normalisation and a ReLU follow."""
    # By its name, each convolution makes an initializer of its own: one object gives equal values to equal shapes.
    return "he_normal" if config.head_init == "he" else normal()


def tower(config: ModelConfig, name: str) -> list[ConvNorm]:
    """The stacked convolutions of a branch; their names are `name` and a number from 0."""
    last = config.head_convs - 1
    return [
        ConvNorm(
            config.head_channels,
            3,
            groups=config.norm_groups,
            kernel_initializer=hidden(config),
            deformable=config.head_deformable if index == last or config.head_deformable_convs == "all" else "none",
            name=f"{name}{index}",
        )
        for index in range(config.head_convs)
    ]


def build_in_turn(layers: Sequence[Any], shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """Creates the variables of layers that follow one another; returns the output shape of the last one."""
    for layer in layers:
        layer.build(shape)
        shape = layer.compute_output_shape(shape)
    return shape


def align_levels(pyramid: Mapping[str, tf.Tensor], levels: Sequence[str]) -> list[tf.Tensor]:
    """The levels of P2..P6 that carry a grid, P2 at half its size and P6 at P5's size (quirk 8)."""
    features = dict(pyramid)
    if "p2" in levels:
        _, height, width, _ = features["p2"].shape
        features["p2"] = resize_bilinear(features["p2"], (height // 2, width // 2))
    if "p6" in levels:
        features["p6"] = resize_bilinear(features["p6"], features["p5"].shape[1:3])
    return [features[name] for name in levels]


def double(x: tf.Tensor) -> tf.Tensor:
    """Twice the height and width, bilinearly: [B,h,w,C] -> [B,2h,2w,C]."""
    return resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]))


def apply(steps: Sequence[Callable[[tf.Tensor], tf.Tensor]], x: tf.Tensor, recompute: Recomputation | None) -> Any:
    """Applies layers and functions one after the other; with recompute, only x is kept for the backward pass."""

    def run(x: tf.Tensor) -> tf.Tensor:
        for step in steps:
            x = step(x)
        return x

    if recompute is None:
        return run(x)
    return recompute(run, [step for step in steps if isinstance(step, keras.layers.Layer)], x)


class CategoryHead(keras.layers.Layer):
    """Category logits for every cell of every grid, of members that predict no kernels.

    Args:
      config: the network.
      recompute: keep only the resized feature of each level for the backward pass.
    """

    def __init__(self, config: ModelConfig, recompute: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.recompute = recompute
        self.grid = config.grid
        self.category_convs = tower(config, "category_conv")
        self.category = Conv(config.num_categories, 3, normal(), prior_bias(), name="category")

    def build(self, input_shapes: Mapping[str, tuple[Any, ...]]) -> None:
        """Creates the variables."""
        size, channels = self.grid.sizes[0], input_shapes[self.grid.levels[0]][-1]
        build_in_turn([*self.category_convs, self.category], (None, size, size, channels))

    def call(self, pyramid: Mapping[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """P2..P6 -> category_logits float32 [B,N,C]; levels in order, cells row-major."""
        recompute = Recomputation() if training and self.recompute else None
        levels = []
        for feature, size in zip(align_levels(pyramid, self.grid.levels), self.grid.sizes, strict=True):
            # The feature is resized to the grid before the first convolution, and has no coordinates (quirk 21).
            x = resize_bilinear(feature, (size, size))
            logits = apply([*self.category_convs, self.category], x, recompute)
            levels.append(tf.reshape(logits, [-1, size * size, logits.shape[-1]]))
        return {"category_logits": tf.cast(tf.concat(levels, axis=1), tf.float32)}
