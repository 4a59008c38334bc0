"""The whole network: backbone, pyramid, and the heads of a member of the family."""

from typing import Any

import keras
import tensorflow as tf

from solo_dist.config import ModelConfig
from solo_dist.errors import ConfigError
from solo_dist.models.backbones import build_backbone
from solo_dist.models.fpn import FeaturePyramid
from solo_dist.solo.family import find_member


class SOLONetwork(keras.Model):
    """A member of the SOLO family for a fixed canvas and any batch.

    Computes in the global dtype policy of Keras.
    """

    def __init__(self, config: ModelConfig, recompute: str = "none", **kwargs: Any):
        super().__init__(name=kwargs.pop("name", config.head), **kwargs)
        self.config = config
        self.backbone = build_backbone(config.backbone, recompute == "all")
        member = find_member(config)
        levels = member.pyramid_levels(config)
        self.fpn = FeaturePyramid(config.fpn_channels, levels, config.fpn_p2_conv, recompute == "all", name="fpn")
        self.heads = member.heads(config, recompute != "none")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        self.backbone.build(input_shape)
        shapes = self.backbone.compute_output_shape(input_shape)
        self.fpn.build(shapes)
        for head in self.heads.values():
            head.build(self.fpn.compute_output_shape(shapes))
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """RGB 0..255, uint8 or floating, [B, H, W, 3] -> the outputs of the member; see `family.Member`."""
        pyramid = self.fpn(self.backbone(images, training=training), training=training)
        outputs: dict[str, tf.Tensor] = {}
        for head in self.heads.values():
            outputs |= head(pyramid, training=training)
        return outputs


def build_model(config: ModelConfig, canvas: tuple[int, int], recompute: str = "none") -> SOLONetwork:
    """A built network with random weights.

    Args:
      config: with num_categories set.
      canvas: H, W of every image, multiples of 32.
      recompute: none, heads or all: what is computed again in the backward pass instead of kept.

    Raises:
      ConfigError: num_categories is not known, or the name of the head or of the backbone is not.
    """
    if config.num_categories < 1:
        raise ConfigError("model.num_categories is 0: read it from the shards' manifest or set it, for example 80.")
    model = SOLONetwork(config, recompute)
    model.build((None, *canvas, 3))
    return model
