"""The demo: a small SOLOv2 learns textured, overlapping shapes in minutes on a laptop without a GPU.

Source: our own; what trained well on two cores: a residual backbone of width 32 with GroupNorm, four levels, AdamW
with warm-up (without it the dice loss can jump to its ceiling and stay there).
If the data set is missing, the trainer makes and shards it.

    solo-dist train --config=shapes_tiny --workdir=runs/shapes_tiny --strategy=one_device
    solo-dist evaluate --config=shapes_tiny --workdir=runs/shapes_tiny

Expected mask AP and time: see the README.
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
        name="shapes_tiny",
        data=DataConfig(
            shapes_folder="data/shapes_tiny",
            train="data/shapes_tiny/train/shards",
            validation="data/shapes_tiny/validation/shards",
            canvas=(128, 128),
            max_instances=16,
            max_positives=96,
            augment=AugmentConfig(flip=True, brightness=0.1),
        ),
        model=ModelConfig(
            backbone=BackboneConfig(name="resnet_tiny", width=32, norm="group", frozen_stages=-1),
            grid=GridConfig(
                levels=("p2", "p3", "p4", "p5"),
                sizes=(16, 12, 8, 6),
                scale_ranges=((1, 28), (20, 44), (32, 72), (56, 2048)),
            ),
            fpn_channels=64,
            head_channels=64,
            head_convs=2,
            kernel_channels=32,
            mask_channels=64,
            norm_groups=8,
        ),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=2e-3,
            weight_decay=1e-4,
            decay_norms_and_biases=False,
            clip_norm=10.0,
            schedule="cosine",
            warmup_steps=150,
        ),
        train=TrainConfig(
            steps=2800,
            global_batch=8,
            log_every=50,
            save_every=500,
            eval_every=1400,
            eval_images=100,
            panel_every=500,
        ),
    )
