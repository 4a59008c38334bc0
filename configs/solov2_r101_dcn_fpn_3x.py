"""SOLOv2 with ResNet-101 and deformable convolutions, 36 epochs of COCO with multi-scale training.

Source: WXinlong/SOLO, configs/solov2/solov2_r101_dcn_fpn_8gpu_3x.py; SOLOv2, NeurIPS 2020, table 1.
Published mask AP on val2017: 41.4 (the publisher's figure; not measured with this code).
mmdetection's weights reach 41.2: --config.model.weights=mmdet:solov2_r101_dcn_fpn_3x.
Modulated deformable convolutions stand in stages 2 to 4 and in all convolutions of the heads but the outputs. Schedule
of solov2_r50_fpn_3x.

    solo-dist train --config=solov2_r101_dcn_fpn_3x --workdir=runs/r101_dcn --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=solov2_r101_dcn_fpn_3x --workdir=runs/r101_dcn --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=2 --config.train.recompute=heads
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solov2_r101_fpn_3x")
    config.name = "solov2_r101_dcn_fpn_3x"
    config.model.backbone.deformable = "v2"
    config.model.head_deformable = "v2"
    return config
