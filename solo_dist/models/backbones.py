"""From the name of a backbone to a layer that turns pictures into C2..C5 at strides 4, 8, 16, 32."""

import keras

from solo_dist.config import BackboneConfig, ConfigError
from solo_dist.models.resnet import ARRANGEMENTS, ResNet


def build_backbone(config: BackboneConfig, recompute: bool = False) -> keras.layers.Layer:
    """The layer named `backbone`: uint8 or float RGB 0..255 [B, H, W, 3] -> four maps. Raises ConfigError."""
    if config.name in ARRANGEMENTS:
        return ResNet(config, recompute, name="backbone")
    raise ConfigError(
        f"model.backbone.name={config.name!r} is unknown; use {', '.join(ARRANGEMENTS)}, efficientnet_lite0 or "
        "keras:NAME, for example keras:ResNet50."
    )
