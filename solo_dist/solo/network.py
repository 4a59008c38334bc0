"""The whole network: backbone, pyramid, grid head and mask head."""

from typing import Any

import keras
import tensorflow as tf

from solo_dist.config import ModelConfig
from solo_dist.errors import ConfigError
from solo_dist.models.backbones import build_backbone
from solo_dist.models.fpn import FeaturePyramid
from solo_dist.solo.heads import GridHead, MaskHead


class SOLOv2(keras.Model):
    """SOLOv2 (Wang et al., NeurIPS 2020) for a fixed canvas and any batch.

    Computes in the global dtype policy of Keras; category logits and kernels come out in float32, mask features in
    the type of the computation, as the dynamic convolution consumes them at once.
    """

    def __init__(self, config: ModelConfig, recompute: str = "none", **kwargs: Any):
        super().__init__(name=kwargs.pop("name", "solov2"), **kwargs)
        self.config = config
        self.backbone = build_backbone(config.backbone, recompute == "all")
        self.fpn = FeaturePyramid(config.fpn_channels, recompute == "all", name="fpn")
        self.head = GridHead(config, recompute != "none", name="head")
        self.mask_head = MaskHead(config, recompute != "none", name="mask_head")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        self.backbone.build(input_shape)
        shapes = self.backbone.compute_output_shape(input_shape)
        self.fpn.build(shapes)
        batch, height, width, _ = shapes[-1]
        channels = self.config.fpn_channels
        pyramid = [(*shape[:3], channels) for shape in shapes]
        pyramid.append((batch, -(-height // 2), -(-width // 2), channels))
        self.head.build(pyramid)
        self.mask_head.build(pyramid)
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """RGB 0..255, uint8 or floating, [B, H, W, 3] -> outputs.

        Returns:
          category_logits float32 [B, N, C]; kernels float32 [B, N, E]; mask_features [B, h, w, E], or
          [B, h, w, L * E] where the config keeps the levels separate.
        """
        pyramid = self.fpn(self.backbone(images, training=training), training=training)
        logits, kernels = self.head(pyramid, training=training)
        return {
            "category_logits": tf.cast(logits, tf.float32),
            "kernels": tf.cast(kernels, tf.float32),
            "mask_features": self.mask_head(pyramid, training=training),
        }


def build_model(config: ModelConfig, canvas: tuple[int, int], recompute: str = "none") -> SOLOv2:
    """A built SOLOv2 with random weights.

    Args:
      config: with num_categories set.
      canvas: H, W of every picture, multiples of 32.
      recompute: none, heads or all: what is computed again in the backward pass instead of being kept.

    Raises:
      ConfigError: num_categories is not known, or the backbone's name is not.
    """
    if config.num_categories < 1:
        raise ConfigError("model.num_categories is 0: read it from the shards' manifest or set it, for example 80.")
    model = SOLOv2(config, recompute)
    model.build((None, *canvas, 3))
    return model
