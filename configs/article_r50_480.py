"""The set-up of an article on SOLOv2 in TensorFlow: Keras' ResNet-50, 480 x 480 pixels, four levels.

Source: P. Timonin, "Gain a better understanding of computer vision: Dynamic SOLO (SOLOv2) with TensorFlow", 2025:
grids 40, 36, 24, 16 on P2 to P5, scale ranges of 60 pixels, seven convolutions of 256, batch 32, SGD at 0.001.
It reports no mask AP. Targets, losses and the arrangement of the heads are the official ones here; theirs differ.
The length is ours: 12 epochs of COCO at 32 images a step.

    solo-dist train --config=article_r50_480 --workdir=runs/article --strategy=mirrored
    solo-dist train --config=article_r50_480 --workdir=runs/article --strategy=one_device \
        --config.train.micro_batch=4

For a small data set of your own: --config.data.train=SHARDS --config.data.validation=SHARDS --config.train.steps=2000
"""

from solo_dist.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DataConfig,
    GridConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def get_config() -> Config:
    """The recipe."""
    return Config(
        name="article_r50_480",
        data=DataConfig(
            train="data/coco/shards_480/train2017",
            validation="data/coco/shards_480/val2017",
            canvas=(480, 480),
            augment=AugmentConfig(flip=True, brightness=0.2),
        ),
        model=ModelConfig(
            backbone=BackboneConfig(name="keras:ResNet50", weights="imagenet", frozen_stages=-1),
            grid=GridConfig(
                levels=("p2", "p3", "p4", "p5"),
                sizes=(40, 36, 24, 16),
                scale_ranges=((1, 60), (60, 120), (120, 180), (180, 2048)),
            ),
            head_channels=256,
            head_convs=7,
            mask_channels=256,
        ),
        optimizer=OptimizerConfig(
            name="sgd", learning_rate=0.001, clip_norm=35.0, schedule="constant", warmup_steps=500, warmup_factor=0.01
        ),
        train=TrainConfig(steps=44_000, global_batch=32, save_every=1000, eval_every=11_000),
    )
