"""Evaluation, which reads shards, and prediction, which reads image files, see the same canvas."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest
import tensorflow as tf

from solo_dist.config import Config, DataConfig, GridConfig
from solo_dist.data.geometry import letterbox
from solo_dist.data.image_io import encode_jpeg, read_image
from solo_dist.data.input.in_order import read_records
from solo_dist.data.input.pipeline import build_dataset
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings

CANVAS = (256, 256)
SIZES = ((180, 240), (256, 256), (300, 211), (517, 390), (640, 480), (1090, 770), (1203, 2111))
GRAIN = 25.0


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEG files of the sizes of SIZES, with sharp edges and grain, and an instances.json."""
    folder = tmp_path_factory.mktemp("synthetic")
    rng = np.random.default_rng(8)
    images, annotations = [], []
    for number, (height, width) in enumerate(SIZES):
        patches = PIL.Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
        pixels = np.asarray(patches.resize((width, height), PIL.Image.Resampling.NEAREST), float)
        pixels = np.clip(pixels + rng.normal(0, GRAIN, pixels.shape), 0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)
        images.append({"id": number, "file_name": f"{number}.jpg", "height": height, "width": width})
        box = {"bbox": [10, 10, 50, 50], "segmentation": [[10, 10, 60, 10, 60, 60, 10, 60]]}
        annotations.append({"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "area": 2500, **box})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "patch"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def shard(annotations: Path, images: Path, output: Path, keep_original: bool) -> str:
    settings = ShardSettings(CANVAS, GridConfig(), keep_original=keep_original)
    shard_coco(ShardJob(str(annotations), str(images), str(output), settings), processes=0, progress=False)
    return str(output)


def predicted_canvas(path: Path) -> tuple[np.ndarray, np.ndarray]:
    canvas, size = letterbox(tf.constant(read_image(str(path))), CANVAS)
    return canvas.numpy(), size.numpy()


def pairs_of_canvases(shards: str, annotations: Path, images: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each image: the canvas that evaluation sees, and the one that prediction makes of the file."""
    names = {image["id"]: image["file_name"] for image in json.loads(annotations.read_text())["images"]}
    config = Config(data=DataConfig(validation=shards, canvas=CANVAS, max_positives=1000))
    for batch in build_dataset(config, "validation", batch_size=1).as_numpy_iterator():
        canvas, size = predicted_canvas(images / names[int(batch["image_id"][0])])
        assert batch["image_size"][0].tolist() == size.tolist()
        yield batch["image"][0].astype(int), canvas.astype(int)


def assert_same_canvases(shards: str, annotations: Path, images: Path, count: int) -> None:
    differences = [np.abs(one - other).max() for one, other in pairs_of_canvases(shards, annotations, images)]
    assert len(differences) == count
    assert max(differences) <= 1


def test_evaluation_of_whole_images_sees_what_prediction_sees(synthetic, tmp_path):
    annotations = synthetic / "instances.json"
    shards = shard(annotations, synthetic, tmp_path / "shards", keep_original=True)
    assert_same_canvases(shards, annotations, synthetic, len(SIZES))


def test_evaluation_of_whole_photos_sees_what_prediction_sees(shared_folder, tmp_path):
    annotations, images = shared_folder("coco128/instances.json"), shared_folder("coco128/images")
    shards = shard(annotations, images, tmp_path / "shards", keep_original=True)
    assert_same_canvases(shards, annotations, images, 128)


def test_fitted_images_are_what_prediction_sees_but_for_the_jpeg(synthetic, tmp_path):
    annotations = synthetic / "instances.json"
    shards = shard(annotations, synthetic, tmp_path / "shards", keep_original=False)
    names = {image["id"]: image["file_name"] for image in json.loads(annotations.read_text())["images"]}
    manifest = shard_coco(
        ShardJob(str(annotations), str(synthetic), shards, ShardSettings(CANVAS, GridConfig())), 0, False
    )
    for record in read_records(manifest):
        path = synthetic / names[int(record.image_id)]
        canvas, (height, width) = predicted_canvas(path)
        fitted = encode_jpeg(PIL.Image.fromarray(canvas[:height, :width]))
        assert record.image.numpy() in (fitted, path.read_bytes())
