"""SOLOv2 with ResNet-50, 12 epochs of COCO at one scale.

Source: WXinlong/SOLO, configs/solov2/solov2_r50_fpn_8gpu_1x.py.
Published mask AP on val2017: 34.8 (the publisher's figure; not measured with this code). Time: a third of that of 3x.
Schedule: 7330 steps an epoch; rate / 10 after epochs 9 and 11. Without scale jitter the precomputed targets apply.

    python -m solo_dist.train --config=configs/solov2_r50_fpn_1x.py --workdir=runs/r50_1x --strategy=mirrored \
        --config.runtime.precision=bfloat16
    python -m solo_dist.train --config=configs/solov2_r50_fpn_1x.py --workdir=runs/r50_1x --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=2

On the canvas see solov2_r50_fpn_3x.
"""

from configs import solov2_r50_fpn_3x
from configs.solov2_r50_fpn_3x import STEPS_PER_EPOCH
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = solov2_r50_fpn_3x.get_config()
    config.name = "solov2_r50_fpn_1x"
    config.data.augment.short_sides = ()
    config.optimizer.milestones = (9 * STEPS_PER_EPOCH, 11 * STEPS_PER_EPOCH)
    config.train.steps = 12 * STEPS_PER_EPOCH
    config.train.eval_every = 3 * STEPS_PER_EPOCH
    return config
