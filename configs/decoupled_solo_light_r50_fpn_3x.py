"""Decoupled SOLO light with ResNet-50 at 512 pixels: one mask tower, four convolutions of 256.

Source: WXinlong/SOLO, configs/solo/decoupled_solo_light_r50_fpn_8gpu_3x.py; SOLO (Wang et al., ECCV 2020), section 4.
Published mask AP on val2017: 33.0 (the publisher's figure; not measured with this code).
mmdetection's weights reach 32.9: --config.model.weights=mmdet:decoupled_solo_light_r50_fpn_3x.
Schedule of solo_r50_fpn_3x; short sides 352 to 512 in training, 512 in tests, long sides up to 852 there, 864 here.

    solo-dist train --config=decoupled_solo_light_r50_fpn_3x --workdir=runs/decoupled_light --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=decoupled_solo_light_r50_fpn_3x --workdir=runs/decoupled_light --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=2
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solo_r50_fpn_3x")
    config.name = "decoupled_solo_light_r50_fpn_3x"
    config.data.canvas = (512, 864)
    config.data.augment.short_sides = (352, 384, 416, 448, 480, 512)
    config.model.head = "decoupled_solo_light"
    config.model.head_convs = 4
    config.model.grid.scale_ranges = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))
    return config
