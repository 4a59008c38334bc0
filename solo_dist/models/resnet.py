"""ResNet 18/34/50/101 and ResNeXt-101 in the torchvision arrangement, and a small residual backbone for small images.

The stride sits in the 3x3 convolution, padding is symmetric, epsilon 1e-5 (docs/numerics.md, quirks 10 and 17).
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from solo_dist.config import BackboneConfig
from solo_dist.models.layers import ConvNorm
from solo_dist.models.recompute import Recomputation

# What torchvision's weights expect, RGB, in the range 0..255.
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


BLOCKS_RECOMPUTED = 4
"""Residual blocks whose activations are computed again together. The input of a stage is kept for the pyramid anyway;
within a stage, more inputs kept and more activations held at a time balance about here."""


class Arrangement(NamedTuple):
    """What distinguishes one residual network from another."""

    blocks: tuple[int, int, int, int]
    """Number of blocks of each stage."""
    bottleneck: bool
    """Blocks are 1x1, 3x3, 1x1 convolutions, not two 3x3."""
    large_stem: bool = True
    """Stem and max pooling are those for large images."""
    cardinality: int = 1
    """Groups of the 3x3 convolutions of bottlenecks (ResNeXt)."""
    group_width: int = 64
    """Channels of a group in stage 1 if the stem has 64; twice as many from each stage to the next."""


ARRANGEMENTS = {
    "resnet_tiny": Arrangement((1, 1, 1, 1), bottleneck=False, large_stem=False),
    "resnet18": Arrangement((2, 2, 2, 2), bottleneck=False),
    "resnet34": Arrangement((3, 4, 6, 3), bottleneck=False),
    "resnet50": Arrangement((3, 4, 6, 3), bottleneck=True),
    "resnet101": Arrangement((3, 4, 23, 3), bottleneck=True),
    "resnext101_64x4d": Arrangement((3, 4, 23, 3), bottleneck=True, cardinality=64, group_width=4),
}


class ResidualBlock(keras.layers.Layer):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the width; projected shortcut if shapes differ.

    Args:
      config: the backbone.
      width: channels of the 3x3 convolutions; in a ResNeXt a quarter of those of the block.
      strides: stride of the block.
      project: whether the shortcut is a 1x1 convolution.
      deformable: a kind of `BackboneConfig.deformable`, for the 3x3 convolution of a bottleneck.
    """

    def __init__(
        self, config: BackboneConfig, width: int, strides: int, project: bool, deformable: str = "none", **kwargs: Any
    ):
        super().__init__(**kwargs)
        norm, zero = config.norm, config.zero_init_residual
        arrangement = ARRANGEMENTS[config.name]
        if arrangement.bottleneck:
            first, second = (strides, 1) if config.stride_in_1x1 else (1, strides)
            cardinality = arrangement.cardinality
            inner = width * arrangement.group_width // 64 * cardinality
            middle: dict[str, Any] = {"cardinality": cardinality, "deformable": deformable}
            self.convs = [
                ConvNorm(inner, 1, first, norm=norm, name="conv1"),
                ConvNorm(inner, 3, second, norm=norm, name="conv2", **middle),
                ConvNorm(4 * width, 1, norm=norm, activation=None, zero_gamma=zero, name="conv3"),
            ]
        else:
            self.convs = [
                ConvNorm(width, 3, strides, norm=norm, name="conv1"),
                ConvNorm(width, 3, norm=norm, activation=None, zero_gamma=zero, name="conv2"),
            ]
        self.shortcut: ConvNorm | None = None
        self.pool = project and config.avg_down and strides == 2
        if project:
            step = 1 if self.pool else strides
            self.shortcut = ConvNorm(self.convs[-1].filters, 1, step, norm=norm, activation=None, name="shortcut")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        shape = input_shape
        for conv in self.convs:
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
        if self.shortcut is not None:
            self.shortcut.build(input_shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] -> [B, H / strides, W / strides, filters]."""
        y = x
        for conv in self.convs:
            y = conv(y, training=training)
        if self.pool:
            x = tf.nn.avg_pool2d(x, 2, 2, "VALID")
        return tf.nn.relu(y + (x if self.shortcut is None else self.shortcut(x, training=training)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of what `call` returns."""
        for conv in self.convs:
            input_shape = conv.compute_output_shape(input_shape)
        return input_shape


class Stage(keras.layers.Layer):
    """Residual blocks at one stride; the first changes stride and width."""

    def __init__(self, config: BackboneConfig, index: int, recompute: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.recompute = recompute
        arrangement = ARRANGEMENTS[config.name]
        width = config.widths[index] if config.widths else config.width * 2**index
        # The large stem has reached stride 4, that of the first stage, already.
        strides = 1 if index == 0 and arrangement.large_stem else 2
        changes_shape = strides > 1 or arrangement.bottleneck or width != config.width
        self.blocks: list[Any] = [
            ResidualBlock(
                config,
                width,
                strides if block == 0 else 1,
                project=block == 0 and changes_shape,
                deformable="none" if index == 0 else config.deformable,
                name=f"block{block}",
            )
            for block in range((config.blocks or arrangement.blocks)[index])
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        for block in self.blocks:
            block.build(input_shape)
            input_shape = block.compute_output_shape(input_shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] -> [B, H / strides, W / strides, filters]."""
        if not (training and self.recompute and self.trainable):
            return _run(self.blocks, x, training)
        recompute = Recomputation()
        for start in range(0, len(self.blocks), BLOCKS_RECOMPUTED):
            blocks = self.blocks[start : start + BLOCKS_RECOMPUTED]
            x = recompute(functools.partial(_run, blocks, training=True), blocks, x)
        return x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of what `call` returns."""
        for block in self.blocks:
            input_shape = block.compute_output_shape(input_shape)
        return input_shape


def _run(blocks: Sequence[Any], x: tf.Tensor, training: bool) -> tf.Tensor:
    for block in blocks:
        x = block(x, training=training)
    return x


class ResNet(keras.layers.Layer):
    """Images -> C2..C5 at strides 4, 8, 16, 32.

    Args:
      config: the backbone.
      recompute: keep only the input of every few residual blocks for the backward pass.
    """

    def __init__(self, config: BackboneConfig, recompute: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.large_stem = ARRANGEMENTS[config.name].large_stem
        self.stem = ConvNorm(config.width, 7 if self.large_stem else 3, 2, norm=config.norm, name="stem")
        self.stages = [Stage(config, index, recompute, name=f"stage{index + 1}") for index in range(4)]
        self.frozen_stages = config.frozen_stages
        parts: list[Any] = [self.stem, *self.stages]
        for part in parts[: config.frozen_stages + 1]:
            part.trainable = False

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        self.stem.build(input_shape)
        batch, height, width, channels = self.stem.compute_output_shape(input_shape)
        shape: tuple[Any, ...] = (
            (batch, -(-height // 2), -(-width // 2), channels) if self.large_stem else (batch, height, width, channels)
        )
        for stage in self.stages:
            stage.build(shape)
            shape = stage.compute_output_shape(shape)

    def call(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """RGB 0..255 of any type, [B, H, W, 3] -> four maps [B, H / stride, W / stride, channels]."""
        x = tf.cast((tf.cast(images, tf.float32) - MEAN) / STD, self.compute_dtype)
        x = self.stem(x, training=training)
        if self.large_stem:
            # After a ReLU zeros pad as well as minus infinity does.
            x = tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
        outputs = []
        for index, stage in enumerate(self.stages):
            if index == self.frozen_stages:
                x = tf.stop_gradient(x)  # nothing before this trains: no backward pass, no kept activations
            x = stage(x, training=training)
            outputs.append(tf.stop_gradient(x) if index < self.frozen_stages else x)
        return outputs

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Shape of what `call` returns."""
        batch, height, width, _ = input_shape
        return [
            (batch, height // stride, width // stride, stage.blocks[-1].convs[-1].filters)
            for stride, stage in zip((4, 8, 16, 32), self.stages, strict=True)
        ]
