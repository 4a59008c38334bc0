"""SOLOv2 Light with ResNet-18 at 448 pixels: solov2_light_448_r50_fpn_3x with a smaller backbone.

Source: WXinlong/SOLO, configs/solov2/solov2_light_448_r18_fpn_8gpu_3x.py.
Published mask AP on val2017: 29.6 at 19 ms an image on a V100 (the publisher's figures; not measured with this code).

    solo-dist train --config=solov2_light_448_r18_fpn_3x --workdir=runs/light_r18 \
        --strategy=mirrored --config.runtime.precision=bfloat16
    solo-dist train --config=solov2_light_448_r18_fpn_3x --workdir=runs/light_r18 \
        --strategy=one_device --config.runtime.precision=bfloat16 --config.train.micro_batch=8

Evaluate at the official test size with --config.data.canvas=448,768.
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solov2_light_448_r50_fpn_3x")
    config.name = "solov2_light_448_r18_fpn_3x"
    config.model.backbone.name = "resnet18"
    return config
