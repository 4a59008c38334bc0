"""Fine-tuning on your own photos on one small GPU: SOLOv2 Light with ResNet-18, from its weights trained on COCO.

Source: the network of solov2_light_448_r18_fpn_3x with mmdetection's weights (73 MB, downloaded once; README.md says
what to do without a network) and the official loss that these were trained with; augmentation and schedule of
finetune_lite0_256. Not measured.

    solo-dist shard --annotations=mine/splits/train.json --images=mine/images --output=mine/shards/train \
        --config=finetune_r18 --keep_original
    solo-dist train --config=finetune_r18 --workdir=runs/mine --config.train.minutes=30 \
        --config.data.train=mine/shards/train --config.data.validation=mine/shards/validation
"""

from solo_dist import recipes
from solo_dist.config import Config


def get_config() -> Config:
    """The recipe."""
    config = recipes.get("solov2_light_448_r18_fpn_3x")
    ours = recipes.get("finetune_lite0_256")
    config.name = "finetune_r18"
    config.data.train, config.data.validation = ours.data.train, ours.data.validation
    config.data.canvas, config.data.augment = (512, 512), ours.data.augment
    config.model.weights = "mmdet:solov2_light_r18_fpn_3x"
    config.model.backbone.learning_rate_scale = 0.2
    config.optimizer, config.train = ours.optimizer, ours.train
    config.optimizer.learning_rate = 2e-4
    config.train.global_batch, config.train.minutes = 8, 30
    return config
