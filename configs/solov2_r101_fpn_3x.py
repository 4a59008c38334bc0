"""SOLOv2 with ResNet-101, 36 epochs of COCO with multi-scale training.

Source: WXinlong/SOLO, configs/solov2/solov2_r101_fpn_8gpu_3x.py.
Published mask AP on val2017: 39.1 (the publisher's figure; not measured with this code). Schedule of solov2_r50_fpn_3x.

    solo-dist train --config=solov2_r101_fpn_3x --workdir=runs/r101_3x --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=solov2_r101_fpn_3x --workdir=runs/r101_3x --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=2 --config.train.recompute=heads
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solov2_r50_fpn_3x")
    config.name = "solov2_r101_fpn_3x"
    config.model.backbone.name = "resnet101"
    return config
