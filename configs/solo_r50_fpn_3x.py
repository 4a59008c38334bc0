"""SOLO with ResNet-50, 36 epochs of COCO with multi-scale training.

Source: WXinlong/SOLO, configs/solo/solo_r50_fpn_8gpu_3x.py; SOLO (Wang et al., ECCV 2020), section 3.
Published mask AP on val2017: 35.8 (the publisher's figure; not measured with this code).
mmdetection's weights reach 35.9: --config.model.weights=mmdet:solo_r50_fpn_3x.
Schedule, sizes and canvas of solov2_r50_fpn_3x, but the warm-up starts from a third of the rate.

    solo-dist train --config=solo_r50_fpn_3x --workdir=runs/solo_r50_3x --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=solo_r50_fpn_3x --workdir=runs/solo_r50_3x --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=2
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solov2_r50_fpn_3x")
    config.name = "solo_r50_fpn_3x"
    config.model.head = "solo"
    config.model.head_channels = 256
    config.model.head_convs = 7
    config.optimizer.warmup_factor = 1 / 3
    return config
