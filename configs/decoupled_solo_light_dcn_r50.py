"""Decoupled SOLO light with ResNet-50 and deformable convolutions at 512 pixels.

Source: WXinlong/SOLO, configs/solo/decoupled_solo_light_dcn_r50_fpn_8gpu_3x.py.
Published mask AP on val2017: 35.0 (the publisher's figure; not measured with this code).
Deformable convolutions (version 1) stand in stages 2 to 4 and last in both towers of the heads. Schedule and sizes of
decoupled_solo_light_r50_fpn_3x.

    solo-dist train --config=decoupled_solo_light_dcn_r50 --workdir=runs/decoupled_light_dcn --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=decoupled_solo_light_dcn_r50 --workdir=runs/decoupled_light_dcn --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=2
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("decoupled_solo_light_r50_fpn_3x")
    config.name = "decoupled_solo_light_dcn_r50"
    config.model.backbone.deformable = "v1"
    config.model.head_deformable = "v1"
    config.model.head_deformable_convs = "last"
    return config
