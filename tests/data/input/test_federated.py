"""Batches of sets whose images say of some categories only whether they are there, as LVIS's do."""

import dataclasses
import json

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from solo_dist.config import AugmentConfig, Config, DataConfig, GridConfig, LossConfig, ModelConfig, TrainConfig
from solo_dist.data import augmentation, schema
from solo_dist.data.input.pipeline import build_dataset
from solo_dist.data.input.sampler import Sampler
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.errors import ConfigError
from solo_dist.solo.losses import count_positives, solo_loss

SIDE, CATEGORIES = 32, 10
GRID = GridConfig(levels=("p3",), sizes=(4,), scale_ranges=((1, 512),))
# Of each image: classes with annotations, one of them without a usable mask; neg_category_ids; not_exhaustive ones.
IMAGES = [
    ([0, 1, 9], [2, 3], [1]),
    ([4], [], []),
    ([], [5, 6, 99], [6]),
    ([0], None, None),
    ([7, -8], [2], []),
]


def unknown_of(present, absent, unfinished):
    """The definition, class by class."""
    if absent is None:
        return [False] * CATEGORIES
    return [not ((c in present or c in absent) and c not in unfinished) for c in range(CATEGORIES)]


UNKNOWN = [unknown_of(*image) for image in IMAGES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of LVIS's kind, whose ids are classes plus 20, with fitted/ and whole/ shards."""
    folder = tmp_path_factory.mktemp("federated")
    images, annotations = [], []
    for number, (present, absent, unfinished) in enumerate(IMAGES):
        PIL.Image.new("RGB", (SIDE, SIDE), (10 * number, 90, 120)).save(folder / f"{number}.png")
        image = {"id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE}
        if absent is not None:
            ids = {"neg_category_ids": absent, "not_exhaustive_category_ids": unfinished}
            image |= {name: [20 + c for c in classes] for name, classes in ids.items()}
        images.append(image)
        for c in present:
            outline = [[4, 4, 20, 4, 20, 20]] if c >= 0 else []
            entry = {"id": len(annotations), "image_id": number, "category_id": 20 + abs(c), "segmentation": outline}
            annotations.append(entry)
    categories = [{"id": 20 + c, "name": f"category {c}"} for c in range(CATEGORIES)]
    values = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(values))
    for name in ("fitted", "whole"):
        settings = ShardSettings((SIDE, SIDE), GRID, keep_original=name == "whole")
        shard_coco(ShardJob(f"{folder}/instances.json", str(folder), f"{folder}/{name}", settings, 1), 0, False)
    return folder


def recipe(folder, **augment) -> Config:
    return Config(
        data=DataConfig(
            train=str(folder), canvas=(SIDE, SIDE), max_instances=8, max_positives=32, augment=AugmentConfig(**augment)
        ),
        model=ModelConfig(grid=GRID, num_categories=CATEGORIES),
        loss=LossConfig(federated=True),
        train=TrainConfig(steps=100, global_batch=5),
    )


def unknown_in(batch):
    return np.unpackbits(batch["unknown_categories"].numpy(), axis=1)[:, :CATEGORIES].astype(bool)


@pytest.mark.parametrize("name", ["fitted", "whole"])
def test_batches_say_what_is_unknown(folder, name):
    augment = {"scale": (0.5, 1.5), "crop": 0.5} if name == "whole" else {}
    batch = next(iter(build_dataset(recipe(folder / name, **augment), "train")))
    assert unknown_in(batch).tolist() == [UNKNOWN[number] for number in batch["image_id"].numpy()]
    manifest = schema.load_manifest(f"{folder}/{name}")
    assert manifest.is_federated and manifest.statistics["max_unknown_categories"] == max(map(sum, UNKNOWN)) == 10 - 1


def test_a_mosaic_knows_what_all_its_images_know(folder):
    """Of a pasted instance, all visible pixels are annotated."""
    config = recipe(folder / "whole", mosaic=0.5, paste=1.0)
    order = Sampler(config, schema.load_manifest(config.data.train), training=True)
    mosaics = 0
    for batch in build_dataset(config, "train").take(3):
        for position, found in zip(batch["position"], unknown_in(batch), strict=True):
            numbers = [int(order.record(position))]
            if float(augmentation.draw(config.seed, position).mosaic) < 0.5:
                mosaics += 1
                for part in (1, 2, 3):
                    share = (part - 1 + float(augmentation.draw(config.seed, position, part).partner)) / 3
                    numbers.append(int(order.partner(position, tf.constant(share, tf.float64))))
            assert found.tolist() == np.any([UNKNOWN[number] for number in numbers], axis=0).tolist()
    assert 0 < mosaics < 15


def test_the_loss_of_an_unknown_category_is_free(folder):
    config = recipe(folder / "fitted")
    batch = next(iter(build_dataset(config, "train")))
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(size=[5, GRID.num_cells, CATEGORIES]), tf.float32)
    features, kernels = (tf.zeros([5, *shape]) for shape in ((SIDE // 4, SIDE // 4, 2), (GRID.num_cells, 2)))
    outputs = {"mask_features": features, "kernels": kernels}
    with tf.GradientTape() as tape:
        tape.watch(logits)
        made = solo_loss(
            outputs | {"category_logits": logits}, batch, count_positives(batch), config.loss, config.model
        )
    gradient, grid = tape.gradient(made["category"], logits).numpy(), batch["category_grid"].numpy()
    for b, number in enumerate(batch["image_id"].numpy()):
        for n, c in np.ndindex(GRID.num_cells, CATEGORIES):
            assert (gradient[b, n, c] == 0) == (UNKNOWN[number][c] and grid[b, n] != c)


def test_shards_without_such_lists_are_refused(folder, tmp_path):
    values = json.loads((folder / "instances.json").read_text())
    for image in values["images"]:
        image.pop("neg_category_ids", None)
        image.pop("not_exhaustive_category_ids", None)
    (tmp_path / "instances.json").write_text(json.dumps(values))
    job = ShardJob(f"{tmp_path}/instances.json", str(folder), f"{tmp_path}/shards", ShardSettings((SIDE, SIDE), GRID))
    shard_coco(job, 0, False)
    with pytest.raises(ConfigError, match="loss.federated needs images that say which categories .* set it to False"):
        build_dataset(recipe(tmp_path / "shards"), "train")
    plain = recipe(tmp_path / "shards")
    plain = dataclasses.replace(plain, loss=LossConfig())
    assert "unknown_categories" not in build_dataset(plain, "train").element_spec
