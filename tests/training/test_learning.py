"""Training learns: a few drawn images are learnt by heart, and are not if a part of the training is disabled."""

import json
from pathlib import Path

import pytest
import tensorflow as tf

from configs import shapes_tiny as demo
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
from solo_dist.data.sharding.demo_data import ensure_shapes
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.data.sharding.shapes import ShapesSettings, make_shapes
from solo_dist.training.trainer import Trainer

# Shapes so large that a quarter of the resolution, at which masks are trained, allows an AP of more than 0.8.
SETTINGS = ShapesSettings(side=128, smallest=0.45, largest=0.65, most_shapes=2)
NUM_IMAGES = 4


def recipe(shards: str) -> Config:
    """Trains on the shards and evaluates on the same."""
    return Config(
        name="by_heart",
        data=DataConfig(
            train=shards,
            validation=shards,
            canvas=(128, 128),
            max_instances=4,
            max_positives=48,
            augment=AugmentConfig(flip=False),
        ),
        model=ModelConfig(
            backbone=BackboneConfig(name="resnet_tiny", width=16, norm="group", frozen_stages=-1),
            grid=GridConfig(levels=("p3", "p4"), sizes=(10, 6), scale_ranges=((1, 64), (56, 2048))),
            fpn_channels=32,
            head_channels=32,
            head_convs=1,
            kernel_channels=16,
            mask_channels=32,
            norm_groups=4,
        ),
        optimizer=OptimizerConfig(name="adamw", learning_rate=5e-3, clip_norm=10.0, schedule="cosine", warmup_steps=10),
        train=TrainConfig(steps=90, global_batch=NUM_IMAGES, micro_batch=str(NUM_IMAGES), panel_every=0),
        runtime=RuntimeConfig(deterministic=True, compile="none"),
    )


def make_shards(folder: Path, shift: int = 0) -> str:
    """Shards of the drawn images; with a shift, every shape has the category so many places further on."""
    make_shapes(str(folder), "train", NUM_IMAGES, SETTINGS)
    path = folder / "instances.json"
    annotations = json.loads(path.read_text())
    for annotation in annotations["annotations"]:
        annotation["category_id"] = (annotation["category_id"] - 1 + shift) % SETTINGS.num_categories + 1
    path.write_text(json.dumps(annotations))
    config = recipe(f"{folder}/shards")
    settings = ShardSettings(config.data.canvas, config.model.grid)
    shard_coco(ShardJob(str(path), f"{folder}/images", config.data.train, settings), processes=0, progress=False)
    return config.data.train


def learn(config: Config, workdir: Path) -> float:
    """Trains from the start, and returns the mask AP of the evaluation that ends the run."""
    Trainer(config.validate(), str(workdir), tf.distribute.OneDeviceStrategy("CPU:0")).fit()
    lines = [json.loads(line) for line in open(workdir / "metrics.jsonl")]
    return [line["segm/AP"] for line in lines if line["split"] == "validation"][-1]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shapes"))


def test_a_few_images_are_learnt_by_heart(shards, tmp_path):
    assert learn(recipe(shards), tmp_path) >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("disabled", ["learning_rate", "mask_loss", "category_loss", "categories"])
def test_nothing_is_learnt_with_a_part_disabled(shards, tmp_path, disabled):
    """The test above has to fail if a part of the training does not work."""
    config = recipe(shards)
    if disabled == "learning_rate":
        config.optimizer.learning_rate = 0.0
    elif disabled == "mask_loss":
        config.loss.mask_weight = 0.0
    elif disabled == "category_loss":
        config.loss.category_weight = 0.0
    else:
        config.data.train = make_shards(tmp_path / "shifted", shift=1)
    assert learn(config, tmp_path / "run") < 0.4


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_reaches_its_mask_ap(tmp_path):
    config = demo.get_config()
    config.data.shapes_folder = f"{tmp_path}/data"
    config.data.train, config.data.validation = ensure_shapes(config.data.shapes_folder, config)
    assert learn(config, tmp_path / "run") >= 0.68
