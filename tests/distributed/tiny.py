"""A recipe that starts and trains in seconds: a small network on 64x64 shapes. The data folders come as overrides."""

from typing import Any

from solo_dist.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DataConfig,
    GridConfig,
    ModelConfig,
    OptimizerConfig,
    RuntimeConfig,
    TrainConfig,
)


def model(**options: Any) -> ModelConfig:
    """The network, with some other options: all of its parts are there, as small as they can be."""
    grid = GridConfig(levels=("p3", "p4"), sizes=(8, 6), scale_ranges=((1, 40), (24, 2048)))
    return ModelConfig(
        backbone=BackboneConfig(name="resnet_tiny", width=8, norm="group", frozen_stages=-1),
        fpn_channels=16,
        head_channels=16,
        head_convs=1,
        kernel_channels=8,
        mask_channels=16,
        norm_groups=4,
        **{"grid": grid, **options},
    )


def get_config() -> Config:
    """The recipe."""
    return Config(
        name="tiny",
        data=DataConfig(
            canvas=(64, 64), max_instances=8, max_positives=48, augment=AugmentConfig(flip=True, brightness=0.1)
        ),
        model=model(),
        optimizer=OptimizerConfig(name="adamw", learning_rate=2e-3, clip_norm=10.0, schedule="cosine", warmup_steps=5),
        train=TrainConfig(
            steps=20, global_batch=12, log_every=1, save_every=10, keep_checkpoints=100, panel_every=0, eval_images=4
        ),
        runtime=RuntimeConfig(deterministic=True, compile="none"),
    )
