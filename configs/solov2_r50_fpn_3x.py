"""SOLOv2 with ResNet-50, 36 epochs of COCO with multi-scale training: the recipe of the official model.

Source: WXinlong/SOLO, configs/solov2/solov2_r50_fpn_8gpu_3x.py; SOLOv2, NeurIPS 2020, table 1.
Published mask AP on val2017: 37.5 (the publisher's figure; not measured with this code). Time: 24 hours on 8 V100 at
the 48 images a second that AdelaiDet reports.
Schedule: 7330 steps an epoch of 117,266 images at 16 a step; rate / 10 after epochs 27 and 33.

Eight GPUs, and one GPU with the same gradient by accumulation:

    solo-dist train --config=solov2_r50_fpn_3x --workdir=runs/r50_3x --strategy=mirrored \
        --config.runtime.precision=bfloat16
    solo-dist train --config=solov2_r50_fpn_3x --workdir=runs/r50_3x --strategy=one_device \
        --config.runtime.precision=bfloat16 --config.train.micro_batch=2

The canvas is that of landscape images, so portrait images become smaller than in the official code. With
--config.data.canvas=1344,1344 both are treated alike, at 1.7 times the cost.
"""

from solo_dist.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)

STEPS_PER_EPOCH = 7330


def get_config() -> Config:
    """The recipe."""
    return Config(
        name="solov2_r50_fpn_3x",
        data=DataConfig(
            train="data/coco/shards/train2017",
            validation="data/coco/shards/val2017",
            canvas=(800, 1344),
            augment=AugmentConfig(flip=True, short_sides=(640, 672, 704, 736, 768, 800)),
        ),
        model=ModelConfig(backbone=BackboneConfig(name="resnet50", weights="imagenet")),
        optimizer=OptimizerConfig(
            name="sgd",
            learning_rate=0.01,
            reference_batch=16,
            momentum=0.9,
            weight_decay=1e-4,
            clip_norm=35.0,
            schedule="step",
            warmup_steps=500,
            warmup_factor=0.01,
            milestones=(27 * STEPS_PER_EPOCH, 33 * STEPS_PER_EPOCH),
        ),
        train=TrainConfig(
            steps=36 * STEPS_PER_EPOCH,
            global_batch=16,
            save_every=2000,
            eval_every=6 * STEPS_PER_EPOCH,
        ),
    )
