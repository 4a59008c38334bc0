"""SOLO with ResNet-50, 12 epochs of COCO at one scale.

Source: WXinlong/SOLO, configs/solo/solo_r50_fpn_8gpu_1x.py; SOLO (Wang et al., ECCV 2020), section 3.
Published mask AP on val2017: 32.9 (the publisher's figure; not measured with this code).
mmdetection's weights reach 33.1: --config.model.weights=mmdet:solo_r50_fpn_1x.
Schedule: 7330 steps an epoch; rate / 10 after epochs 9 and 11.

    solo-dist train --config=solo_r50_fpn_1x --workdir=runs/solo_r50_1x --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=solo_r50_fpn_1x --workdir=runs/solo_r50_1x --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=2
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solo_r50_fpn_3x")
    config.name = "solo_r50_fpn_1x"
    config.data.augment.short_sides = ()
    epoch = config.train.steps // 36
    config.optimizer.milestones = (9 * epoch, 11 * epoch)
    config.train.steps = 12 * epoch
    config.train.eval_every = 3 * epoch
    return config
