"""SOLOv2 Light with ResNet-50 and deformable convolutions at 512 pixels: three convolutions of 256 in the heads.

Source: WXinlong/SOLO, configs/solov2/solov2_light_512_dcn_r50_fpn_8gpu_3x.py.
Published mask AP on val2017: 36.4 (the publisher's figure; not measured with this code).
Deformable convolutions (version 1) stand in stages 2 to 4 and last in the towers of categories and kernels. Schedule of
solov2_r50_fpn_3x; short sides 352 to 512 in training, 512 in tests, long sides up to 852 there, 864 here.
mmdetection's model of a similar name has version 2, and does not fit.

    solo-dist train --config=solov2_light_512_dcn_r50 --workdir=runs/light_dcn --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=solov2_light_512_dcn_r50 --workdir=runs/light_dcn --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=4
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solov2_light_448_r50_fpn_3x")
    config.name = "solov2_light_512_dcn_r50"
    config.data.canvas = (512, 864)
    config.model.grid.scale_ranges = ((1, 64), (32, 128), (64, 256), (128, 512), (256, 2048))
    config.model.backbone.deformable = "v1"
    config.model.head_convs = 3
    config.model.head_deformable = "v1"
    config.model.head_deformable_convs = "last"
    return config
