"""Fine-tuning on your own photos on one GPU: finetune_r18 with ResNet-50.

Source: see finetune_r18. Not measured.

    solo-dist train --config=finetune_r50 --workdir=runs/mine --config.train.minutes=60 \
        --config.data.train=mine/shards/train --config.data.validation=mine/shards/validation
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("finetune_r18")
    config.name = "finetune_r50"
    config.model.weights = "mmdet:solov2_light_r50_fpn_3x"
    config.model.backbone.name = "resnet50"
    config.train.minutes = 60
    return config
