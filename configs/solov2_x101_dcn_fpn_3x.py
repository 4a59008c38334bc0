"""SOLOv2 with ResNeXt-101 64x4d and deformable convolutions, 36 epochs of COCO with multi-scale training.

Source: WXinlong/SOLO, configs/solov2/solov2_x101_dcn_fpn_8gpu_3x.py.
Published mask AP on val2017: 42.4 (the publisher's figure; not measured with this code).
mmdetection's weights reach the same: --config.model.weights=mmdet:solov2_x101_dcn_fpn_3x.
Deformable convolutions and schedule of solov2_r101_dcn_fpn_3x.

    solo-dist train --config=solov2_x101_dcn_fpn_3x --workdir=runs/x101_dcn --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=solov2_x101_dcn_fpn_3x --workdir=runs/x101_dcn --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=1 --config.train.recompute=all
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solov2_r101_dcn_fpn_3x")
    config.name = "solov2_x101_dcn_fpn_3x"
    config.model.backbone.name = "resnext101_64x4d"
    return config
