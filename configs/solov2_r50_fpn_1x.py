"""SOLOv2 with ResNet-50, 12 epochs of COCO at one scale.

Source: WXinlong/SOLO, configs/solov2/solov2_r50_fpn_8gpu_1x.py.
Published mask AP on val2017: 34.8 (the publisher's figure; not measured with this code). Time: a third of that of 3x.
Schedule: 7330 steps an epoch; rate / 10 after epochs 9 and 11. Without scale jitter the precomputed targets apply.

    solo-dist train --config=solov2_r50_fpn_1x --workdir=runs/r50_1x --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=solov2_r50_fpn_1x --workdir=runs/r50_1x --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=2

On the canvas see solov2_r50_fpn_3x.
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solov2_r50_fpn_3x")
    config.name = "solov2_r50_fpn_1x"
    config.data.augment.short_sides = ()
    epoch = config.train.steps // 36
    config.optimizer.milestones = (9 * epoch, 11 * epoch)
    config.train.steps = 12 * epoch
    config.train.eval_every = 3 * epoch
    return config
