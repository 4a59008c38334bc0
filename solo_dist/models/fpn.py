"""The feature pyramid: lateral 1x1 and output 3x3 convolutions with bias and without activation, and P6.

Lin et al., Feature Pyramid Networks, section 3, in the arrangement of the official SOLO code.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from solo_dist.config import PYRAMID_LEVELS
from solo_dist.models.layers import Conv
from solo_dist.models.recompute import Recomputation
from solo_dist.models.resize import upsample_nearest_2x


class FeaturePyramid(keras.layers.Layer):
    """C2..C5 -> the wanted ones of P2..P6 with a common number of channels; what none of them needs does not exist.

    Args:
      channels: of every level.
      levels: the wanted levels, finest first.
      p2_conv: whether P2 has an output convolution too, as in the article; without it P2 is the sum itself.
      recompute: keep only the input and the output for the backward pass.
    """

    def __init__(
        self,
        channels: int,
        levels: Sequence[str] = PYRAMID_LEVELS,
        p2_conv: bool = True,
        recompute: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.recompute = recompute
        self.levels = tuple(levels)
        # P6 is made of P5.
        wanted = [level for level in PYRAMID_LEVELS[:4] if level in levels or (level == "p5" and "p6" in levels)]
        self.finest = PYRAMID_LEVELS.index(wanted[0])
        self.lateral = {
            level: Conv(channels, 1, name=f"lateral{level[1]}") for level in PYRAMID_LEVELS[self.finest : 4]
        }
        self.output_convs: dict[str, Conv | None] = {
            level: Conv(channels, 3, name=f"output{level[1]}") if p2_conv or level != "p2" else None for level in wanted
        }

    def build(self, input_shapes: Sequence[tuple[int | None, ...]]) -> None:
        """Creates the variables."""
        for (level, lateral), shape in zip(self.lateral.items(), input_shapes[self.finest :], strict=True):
            lateral.build(shape)
            output = self.output_convs.get(level)
            if output is not None:
                output.build(lateral.compute_output_shape(shape))

    def call(self, features: Sequence[tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """C2..C5 at strides 4 to 32 -> the wanted levels of p2 to p6 at strides 4 to 64, [B, H, W, channels] each."""
        features = features[self.finest :]
        if training and self.recompute:
            layers = [*self.lateral.values(), *filter(None, self.output_convs.values())]
            outputs = Recomputation()(self._merge, layers, *features)
        else:
            outputs = self._merge(*features)
        pyramid = dict(zip(self.output_convs, outputs, strict=True))
        if "p6" in self.levels:
            # A max pooling of one pixel at stride 2 in the official code: every other pixel of P5 (quirk 9).
            pyramid["p6"] = pyramid["p5"][:, ::2, ::2]
        return pyramid

    def compute_output_shape(self, input_shapes: Sequence[tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        """Shapes of what `call` returns."""
        channels = next(iter(self.lateral.values())).filters
        pyramid = {level: (*shape[:3], channels) for level, shape in zip(PYRAMID_LEVELS, input_shapes, strict=False)}
        batch, height, width, _ = input_shapes[-1]
        pyramid["p6"] = (batch, -(-height // 2), -(-width // 2), channels)
        return {level: shape for level, shape in pyramid.items() if level in self.output_convs or level in self.levels}

    def _merge(self, *features: tf.Tensor) -> tuple[tf.Tensor, ...]:
        merged = {
            level: lateral(feature) for (level, lateral), feature in zip(self.lateral.items(), features, strict=True)
        }
        coarse_to_fine = list(merged)[::-1]
        for coarser, finer in zip(coarse_to_fine, coarse_to_fine[1:], strict=False):
            merged[finer] += upsample_nearest_2x(merged[coarser])
        return tuple(
            merged[level] if conv is None else conv(merged[level]) for level, conv in self.output_convs.items()
        )
