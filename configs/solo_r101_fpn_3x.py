"""SOLO with ResNet-101, 36 epochs of COCO with multi-scale training.

Source: WXinlong/SOLO, configs/solo/solo_r101_fpn_8gpu_3x.py; SOLO (Wang et al., ECCV 2020), section 3.
Published mask AP on val2017: 37.1 (the publisher's figure; not measured with this code).
Schedule of solo_r50_fpn_3x.

    solo-dist train --config=solo_r101_fpn_3x --workdir=runs/solo_r101_3x --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=solo_r101_fpn_3x --workdir=runs/solo_r101_3x --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=2
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solo_r50_fpn_3x")
    config.name = "solo_r101_fpn_3x"
    config.model.backbone.name = "resnet101"
    return config
