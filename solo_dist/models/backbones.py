"""From the name of a backbone to a layer that turns images into C2..C5 at strides 4, 8, 16, 32."""

import keras

from solo_dist.config import BackboneConfig
from solo_dist.errors import ConfigError
from solo_dist.models.efficientnet_lite import EfficientNetLite0
from solo_dist.models.keras_backbone import KerasBackbone
from solo_dist.models.resnet import ARRANGEMENTS, ResNet


def build_backbone(config: BackboneConfig, recompute: bool = False) -> keras.layers.Layer:
    """The layer named `backbone`: uint8 or float RGB 0..255 [B, H, W, 3] -> four maps.

    Args:
      config: the backbone.
      recompute: compute the activations of its blocks again in the backward pass.

    Raises:
      ConfigError: unknown name, or an option that this backbone does not have.
    """
    if config.deformable != "none" and not (config.name in ARRANGEMENTS and ARRANGEMENTS[config.name].bottleneck):
        raise ConfigError(
            f"model.backbone.deformable={config.deformable} is possible with resnet50, resnet101 and "
            f"resnext101_64x4d, not with model.backbone.name={config.name}."
        )
    if config.name in ARRANGEMENTS:
        return ResNet(config, recompute, name="backbone")
    if config.blocks or config.widths or config.avg_down or not config.zero_init_residual:
        raise ConfigError(
            "model.backbone.blocks, widths, avg_down and zero_init_residual are options of the resnets, not of "
            f"model.backbone.name={config.name}; leave them out."
        )
    if config.name == "efficientnet_lite0":
        return EfficientNetLite0(config, recompute, name="backbone")
    if config.name.startswith("keras:"):
        if recompute:
            raise ConfigError(f"train.recompute=all is not possible with {config.name}; use train.recompute=heads.")
        return KerasBackbone(config, name="backbone")
    raise ConfigError(
        f"model.backbone.name={config.name!r} is unknown; use {', '.join(ARRANGEMENTS)}, efficientnet_lite0 or "
        "keras:NAME, for example keras:ResNet50."
    )
