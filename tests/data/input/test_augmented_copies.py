"""Shards with several augmented copies of each image: each epoch takes the next one, with the targets made for it."""

import json

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from solo_dist.config import AugmentConfig, Config, DataConfig, GridConfig, ModelConfig
from solo_dist.data.image_io import DCT_METHOD
from solo_dist.data.input.in_order import read_records
from solo_dist.data.input.pipeline import build_dataset
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.errors import ConfigError

CANVAS = (64, 96)
GRID = GridConfig(levels=("p2", "p3"), sizes=(12, 6), scale_ranges=((1, 30), (20, 2000)))
AUGMENT = AugmentConfig(flip=False, scale=(0.5, 1.5), crop=0.2)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    images, annotations = [], []
    for number in range(3):
        pixels = np.full((64, 96, 3), 40 * number, np.uint8)
        pixels[20:50, 30:70] = 255
        PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 96})
        values = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "area": 1200}
        annotations.append(values | {"bbox": [30, 20, 40, 30], "segmentation": [[30, 20, 70, 20, 70, 50, 30, 50]]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "sheet"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    settings = ShardSettings(CANVAS, GRID, augmented_copies=2, augment=AUGMENT)
    return shard_coco(ShardJob(f"{folder}/instances.json", str(folder), f"{folder}/shards", settings), 0, False)


def recipe(folder):
    data = DataConfig(
        train=folder, validation=folder, canvas=CANVAS, max_instances=4, max_positives=32, augment=AUGMENT
    )
    return Config(data=data, model=ModelConfig(grid=GRID))


def test_an_epoch_uses_the_next_view(manifest):
    views = {}
    for record in read_records(manifest):
        views.setdefault(int(record.image_id), []).append(record)
    assert [len(of_image) for of_image in views.values()] == [2, 2, 2]
    batches = build_dataset(recipe(manifest.folder), "train", batch_size=1).take(3 * 3)
    for number, batch in enumerate(batches.as_numpy_iterator()):
        record = views[int(batch["image_id"][0])][number // 3 % 2]
        height, width = record.size.numpy()
        assert batch["image_size"][0].tolist() == [height, width]
        np.testing.assert_array_equal(
            batch["image"][0, :height, :width], tf.io.decode_jpeg(record.image, dct_method=DCT_METHOD)
        )
        cells = np.frombuffer(record.features["positives_plain"].numpy(), np.int32).reshape(2, -1)[0]
        assert batch["positive_cell"][0, : len(cells)].tolist() == cells.tolist()


def test_views_are_not_evaluated(manifest):
    with pytest.raises(ConfigError, match="holds augmented copies, which cannot be evaluated"):
        build_dataset(recipe(manifest.folder), "validation", batch_size=1)
