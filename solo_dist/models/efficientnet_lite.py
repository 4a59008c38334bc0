"""EfficientNet-Lite0: inverted residuals without squeeze-and-excitation, with ReLU6; good on CPUs and phones.

Tan and Le, EfficientNet (ICML 2019), in the Lite variant of TensorFlow's TPU repository: TensorFlow's own SAME padding
and epsilon 1e-3, as its ImageNet weights expect.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from solo_dist.config import BackboneConfig
from solo_dist.models.layers import ConvNorm
from solo_dist.models.recompute import Recomputation

MEAN, STD = 127.0, 128.0
EPSILON = 1e-3
STEM_CHANNELS = 32


class Group(NamedTuple):
    """Blocks that share their shape; the first one has the stride."""

    blocks: int
    kernel_size: int
    strides: int
    expansion: int
    channels: int
    stage: int
    """0 at stride 2, then 1 to 4 at strides 4 to 32."""


GROUPS = (
    Group(1, 3, 1, 1, 16, 0),
    Group(2, 3, 2, 6, 24, 1),
    Group(2, 5, 2, 6, 40, 2),
    Group(3, 3, 2, 6, 80, 3),
    Group(3, 5, 1, 6, 112, 3),
    Group(4, 5, 2, 6, 192, 4),
    Group(1, 3, 1, 6, 320, 4),
)


def _conv(filters: int, kernel_size: int, strides: int, config: BackboneConfig, name: str, **kwargs: Any) -> ConvNorm:
    arguments = {"activation": tf.nn.relu6, "norm": config.norm, "epsilon": EPSILON, "padding": "tensorflow"}
    return ConvNorm(filters, kernel_size, strides, name=name, **(arguments | kwargs))


class InvertedResidual(keras.layers.Layer):
    """1x1 expansion, depthwise convolution, linear 1x1 projection, and a shortcut if the shapes agree."""

    def __init__(self, config: BackboneConfig, group: Group, channels: int, strides: int, **kwargs: Any):
        super().__init__(**kwargs)
        wide = channels * group.expansion
        self.convs = [
            _conv(wide, group.kernel_size, strides, config, "depthwise", depthwise=True),
            _conv(group.channels, 1, 1, config, "project", activation=None),
        ]
        if group.expansion > 1:
            self.convs.insert(0, _conv(wide, 1, 1, config, "expand"))
        self.shortcut = strides == 1 and channels == group.channels

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        for conv in self.convs:
            conv.build(input_shape)
            input_shape = conv.compute_output_shape(input_shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), channels of the group]."""
        y = x
        for conv in self.convs:
            y = conv(y, training=training)
        return x + y if self.shortcut else y

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of what `call` returns."""
        for conv in self.convs:
            input_shape = conv.compute_output_shape(input_shape)
        return input_shape


class EfficientNetLite0(keras.layers.Layer):
    """Images -> C2..C5 at strides 4, 8, 16, 32 with 24, 40, 112, 320 channels.

    Args:
      config: the backbone; its width is not used.
      recompute: keep only the input of each block for the backward pass.
    """

    def __init__(self, config: BackboneConfig, recompute: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.recompute = recompute
        self.frozen_stages = config.frozen_stages
        self.stem = _conv(STEM_CHANNELS, 3, 2, config, "stem")
        self.blocks: list[InvertedResidual] = []
        self.stage_of_block: list[int] = []
        channels = STEM_CHANNELS
        for group in GROUPS:
            for index in range(group.blocks):
                strides = group.strides if index == 0 else 1
                block = InvertedResidual(config, group, channels, strides, name=f"block{len(self.blocks)}")
                block.trainable = group.stage > config.frozen_stages
                self.blocks.append(block)
                self.stage_of_block.append(group.stage)
                channels = group.channels
        self.stem.trainable = config.frozen_stages < 0

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        self.stem.build(input_shape)
        shape = self.stem.compute_output_shape(input_shape)
        for block in self.blocks:
            block.build(shape)
            shape = block.compute_output_shape(shape)

    def call(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """RGB 0..255 of any type, [B, H, W, 3] -> four maps [B, H / stride, W / stride, channels]."""
        x = tf.cast((tf.cast(images, tf.float32) - MEAN) / STD, self.compute_dtype)
        x = self.stem(x, training=training)
        stages = {}
        recomputed = Recomputation()
        for block, stage in zip(self.blocks, self.stage_of_block, strict=True):
            if training and self.recompute and block.trainable:
                x = recomputed(lambda x, block=block: block(x, training=True), [block], x)
            else:
                x = block(x, training=training)
            if stage <= self.frozen_stages:
                x = tf.stop_gradient(x)  # nothing before this trains
            stages[stage] = x
        return [stages[stage] for stage in (1, 2, 3, 4)]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> list[tuple[int | None, ...]]:
        """Shapes of what `call` returns."""
        shape = self.stem.compute_output_shape(input_shape)
        shapes = {}
        for block, stage in zip(self.blocks, self.stage_of_block, strict=True):
            shape = block.compute_output_shape(shape)
            shapes[stage] = shape
        return [shapes[stage] for stage in (1, 2, 3, 4)]
