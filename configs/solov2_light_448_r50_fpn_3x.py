"""SOLOv2 Light with ResNet-50 at 448 pixels: two convolutions of 256 in the heads, kernels of 128.

Source: WXinlong/SOLO, configs/solov2/solov2_light_448_r50_fpn_8gpu_3x.py.
Published mask AP on val2017: 33.7 at 24 ms an image on a V100 (the publisher's figures; not measured with this code).
Schedule of solov2_r50_fpn_3x; short sides 352 to 512 in training, 448 in tests.

    solo-dist train --config=solov2_light_448_r50_fpn_3x --workdir=runs/light_r50 \
        --strategy=mirrored --config.runtime.precision=bfloat16
    solo-dist train --config=solov2_light_448_r50_fpn_3x --workdir=runs/light_r50 \
        --strategy=one_device --config.runtime.precision=bfloat16 --config.train.micro_batch=8

Evaluate at the official test size with --config.data.canvas=448,768.
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solov2_r50_fpn_3x")
    config.name = "solov2_light_448_r50_fpn_3x"
    config.data.canvas = (512, 768)
    config.data.augment.short_sides = (352, 384, 416, 448, 480, 512)
    config.model.grid.scale_ranges = ((1, 56), (28, 112), (56, 224), (112, 448), (224, 896))
    config.model.head_channels = 256
    config.model.head_convs = 2
    config.model.kernel_channels = 128
    return config
