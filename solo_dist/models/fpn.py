"""The feature pyramid: lateral 1x1 and output 3x3 convolutions with bias and without activation, and P6.

Lin et al., Feature Pyramid Networks, section 3, in the arrangement of the official SOLO code.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from solo_dist.models.layers import Conv
from solo_dist.models.recompute import Recomputation
from solo_dist.models.resize import upsample_nearest_2x


class FeaturePyramid(keras.layers.Layer):
    """C2..C5 -> P2..P6 with a common number of channels.

    Args:
      channels: of every level.
      p2_conv: whether P2 has an output convolution too, as in the article; without it P2 is the sum itself.
      recompute: keep only the input and the output for the backward pass.
    """

    def __init__(self, channels: int, p2_conv: bool = True, recompute: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.recompute = recompute
        self.lateral = [Conv(channels, 1, name=f"lateral{level}") for level in range(2, 6)]
        self.finest = 0 if p2_conv else 1  # index of the first level that has an output convolution
        self.output_convs = [Conv(channels, 3, name=f"output{level}") for level in range(2 + self.finest, 6)]

    def build(self, input_shapes: Sequence[tuple[int | None, ...]]) -> None:
        """Creates the variables."""
        for lateral, shape in zip(self.lateral, input_shapes, strict=True):
            lateral.build(shape)
        for output, lateral, shape in zip(
            self.output_convs, self.lateral[self.finest :], input_shapes[self.finest :], strict=True
        ):
            output.build(lateral.compute_output_shape(shape))

    def call(self, features: Sequence[tf.Tensor], training: bool = False) -> list[tf.Tensor]:
        """Strides 4, 8, 16, 32 -> strides 4, 8, 16, 32, 64; each [B, H / stride, W / stride, channels]."""
        if training and self.recompute:
            outputs = Recomputation()(self._merge, [*self.lateral, *self.output_convs], *features)
        else:
            outputs = self._merge(*features)
        # A max pooling of one pixel at stride 2 in the official code: every other pixel of P5 (quirk 9).
        return [*outputs, outputs[-1][:, ::2, ::2]]

    def _merge(self, *features: tf.Tensor) -> tuple[tf.Tensor, ...]:
        merged = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for level in (2, 1, 0):
            merged[level] += upsample_nearest_2x(merged[level + 1])
        plain, others = merged[: self.finest], merged[self.finest :]
        return (*plain, *(conv(feature) for conv, feature in zip(self.output_convs, others, strict=True)))
