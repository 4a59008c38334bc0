"""Decoupled SOLO with ResNet-50, 36 epochs of COCO with multi-scale training.

Source: WXinlong/SOLO, configs/solo/decoupled_solo_r50_fpn_8gpu_3x.py; SOLO (Wang et al., ECCV 2020), section 4.
Published mask AP on val2017: 36.4 (the publisher's figure; not measured with this code).
mmdetection's weights reach 36.7: --config.model.weights=mmdet:decoupled_solo_r50_fpn_3x.
Schedule of solo_r50_fpn_3x.

    solo-dist train --config=decoupled_solo_r50_fpn_3x --workdir=runs/decoupled_r50_3x --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=decoupled_solo_r50_fpn_3x --workdir=runs/decoupled_r50_3x --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=2
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solo_r50_fpn_3x")
    config.name = "decoupled_solo_r50_fpn_3x"
    config.model.head = "decoupled_solo"
    return config
