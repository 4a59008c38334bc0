"""The shard tool, as a program and as a function: formats, rejections, resuming, the same bytes from any run."""

import dataclasses
import gzip
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from pycocotools.coco import COCO

from solo_dist.config import AugmentConfig, DataConfig, GridConfig
from solo_dist.data import geometry, schema
from solo_dist.data.sharding import coco_json, inspection
from solo_dist.data.sharding import job as sharding
from solo_dist.data.sharding.claims import claimed
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.notes import shard_task
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.errors import ConfigError
from solo_dist.solo.targets import make_targets

ROOT = Path(__file__).resolve().parent.parent.parent
GRID = GridConfig(levels=("p2", "p3", "p4"), sizes=(12, 8, 4), scale_ranges=((1, 24), (16, 48), (40, 512)))
SETTINGS = ShardSettings(canvas=(64, 96), grid=GRID)
CATEGORIES = [{"id": 2, "name": "box"}, {"id": 9, "name": "seen in no image"}]


def box(number, image, x=5, y=5, w=20, h=12, **changes):
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    values = {"id": number, "image_id": image, "category_id": 2, "segmentation": [polygon], "iscrowd": 0}
    return values | {"bbox": [x, y, w, h], "area": w * h} | changes


def smooth_image(height, width, seed=0):
    rng = np.random.default_rng(seed)
    small = PIL.Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    return small.resize((width, height), PIL.Image.Resampling.BICUBIC)


class DataSet:
    """A COCO data set on disk that a test puts together."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "images").mkdir(parents=True)
        self.values = {"images": [], "annotations": [], "categories": CATEGORIES}

    def add(self, name, data=None, height=50, width=80, annotations=1, **save):
        """An image entry, its file (of `data`, or an image saved in the format of its name) and annotations."""
        number = len(self.values["images"]) + 1
        self.values["images"].append({"id": number, "file_name": name, "height": height, "width": width})
        for _ in range(annotations):
            count = len(self.values["annotations"])
            self.values["annotations"].append(box(count + 100, number, x=5 + count % 40))
        path = self.folder / "images" / name
        path.parent.mkdir(exist_ok=True)
        if data is None:
            smooth_image(height, width, number).save(path, **save)
        else:
            path.write_bytes(data)
        return number

    def job(self, output="shards", settings=SETTINGS, **changes):
        (self.folder / "instances.json").write_text(json.dumps(self.values))
        paths = (str(self.folder / part) for part in ("instances.json", "images", output))
        return ShardJob(*paths, settings, **changes)


@pytest.fixture
def data_set(tmp_path):
    return DataSet(tmp_path / "data")


def shard(job, processes=0):
    return shard_coco(job, processes, progress=False)


def records_of(manifest):
    for file in manifest.files:
        for serialized in tf.data.TFRecordDataset(f"{manifest.folder}/{file.name}"):
            yield schema.parse_record(serialized)


def rejections_of(manifest):
    lines = Path(manifest.folder, schema.REJECTED).read_text().splitlines()
    return [json.loads(line) for line in lines]


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


# ---- What is stored


def test_images_are_fitted_and_targets_belong_to_them(data_set):
    data_set.add("a.png", height=50, width=80)
    manifest = shard(data_set.job())
    (record,) = records_of(manifest)
    # 96 / 80 = 1.2 fits; 50 * 1.2 = 60 is a multiple of 4.
    assert record.size.numpy().tolist() == record.canvas_size.numpy().tolist() == [60, 96]
    assert record.original_size.numpy().tolist() == [50, 80]
    assert tf.io.decode_jpeg(record.image).shape == (60, 96, 3)
    np.testing.assert_allclose(record.boxes, [[6, 6, 24 * 1.2, 16 * 1.2]], rtol=1e-6)
    assert record.runs.row.numpy().min() == 6 and record.runs.row.numpy().max() == 20
    assert record.runs.start.numpy().min() == 6 and record.runs.end.numpy().max() == 30
    made = schema.precomputed_targets(record, False, SETTINGS.canvas, GRID.num_cells)
    # The box's centre, 17.5 x 12.6 of 96 x 64, in the 8 x 8 grid of the second level.
    assert 144 + 1 * 8 + 1 in made.positives.cell.numpy()
    assert manifest.num_images == manifest.num_instances == 1 and manifest.rejected == {}
    assert [category["id"] for category in manifest.categories] == [2, 9]


@pytest.mark.parametrize("keep_original", [False, True])
def test_precomputed_targets_are_the_recomputed_ones(data_set, keep_original):
    for number in range(6):
        image = data_set.add(f"{number}.png", height=41 + 13 * number, width=120 - 9 * number, annotations=0)
        for k in range(number):
            annotation = box(50 * image + k, image, x=3 * k, y=7 * k, w=9 + 8 * k, h=20 + k)
            data_set.values["annotations"].append(annotation)
    manifest = shard(data_set.job(settings=ShardSettings(SETTINGS.canvas, GRID, keep_original=keep_original)))
    compare_with_recomputed(manifest, SETTINGS.canvas, GRID)


def compare_with_recomputed(manifest, canvas, grid):
    """Precomputed against recomputed targets of all records, bit for bit; returns the number of plain positives."""

    @tf.function
    def both(serialized, flipped):
        record = schema.parse_record(serialized)
        placement = geometry.whole_image(record.size, canvas, flipped)
        moved, boxes = geometry.move_instances(record.runs, record.boxes, record.size, placement)
        recomputed = make_targets(moved, boxes, record.categories, canvas, grid)
        precomputed = schema.precomputed_targets(record, flipped, canvas, grid.num_cells)
        return (placement.size, recomputed), (record.canvas_size, precomputed)

    total = 0
    for file in manifest.files:
        for serialized in tf.data.TFRecordDataset(f"{manifest.folder}/{file.name}"):
            for flipped in (False, True):
                recomputed, precomputed = both(serialized, tf.constant(flipped))
                for one, other in zip(tf.nest.flatten(recomputed), tf.nest.flatten(precomputed), strict=True):
                    np.testing.assert_array_equal(one, other)
                total += 0 if flipped else len(precomputed[1].positives.cell)
    assert total
    return total


def test_a_jpeg_is_encoded_again_only_where_it_was_resized(data_set):
    data_set.add("fits.jpg", height=64, width=96, quality=60)
    data_set.add("grey.jpg", encoded("L", "JPEG", (96, 64)), height=64, width=96)
    data_set.add("large.jpg", height=128, width=192, quality=60)
    images = [record.image.numpy() for record in records_of(shard(data_set.job()))]
    files = [(data_set.folder / "images" / name).read_bytes() for name in ("fits.jpg", "grey.jpg", "large.jpg")]
    assert images[:2] == files[:2] and images[2] != files[2]
    kept = ShardSettings(SETTINGS.canvas, GRID, keep_original=True)
    assert [record.image.numpy() for record in records_of(shard(data_set.job("kept", kept)))] == files


def encoded(mode, kind, size=(80, 50), **save):
    image = smooth_image(size[1], size[0]).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **save)
    return buffer.getvalue()


def sixteen_bit_png():
    values = (np.asarray(smooth_image(50, 80).convert("L"), np.uint16) << 8) + 77
    buffer = io.BytesIO()
    PIL.Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


FORMATS = {
    "cmyk.jpg": lambda: encoded("CMYK", "JPEG", quality=95),
    "grey.jpg": lambda: encoded("L", "JPEG", quality=95),
    "progressive.jpg": lambda: encoded("RGB", "JPEG", quality=95, progressive=True),
    "grey.png": lambda: encoded("L", "PNG"),
    "alpha.png": lambda: encoded("RGBA", "PNG"),
    "palette.png": lambda: encoded("P", "PNG"),
    "sixteen.png": sixteen_bit_png,
    "moving.gif": lambda: encoded("P", "GIF", save_all=True, append_images=[smooth_image(50, 80, 9).convert("P")]),
    "image.bmp": lambda: encoded("RGB", "BMP"),
    "image.webp": lambda: encoded("RGB", "WEBP", quality=95),
    "image.tiff": lambda: encoded("RGB", "TIFF"),
    "wrong_name.png": lambda: encoded("RGB", "JPEG", quality=95),
    "name with spaces.png": lambda: encoded("RGB", "PNG"),
    "übergröße 苹果.png": lambda: encoded("RGB", "PNG"),
    "folder/inside.png": lambda: encoded("RGB", "PNG"),
}


def test_all_kinds_of_files_become_the_same_image(data_set):
    for name, data in FORMATS.items():
        data_set.add(name, data())
    manifest = shard(data_set.job(strict=True))
    assert manifest.num_images == len(FORMATS)
    wanted = np.asarray(smooth_image(50, 80).resize((96, 60), PIL.Image.Resampling.BILINEAR), float)
    grey = np.asarray(PIL.Image.fromarray(wanted.astype(np.uint8)).convert("L"), float)[..., None]
    for name, record in zip(FORMATS, records_of(manifest), strict=True):
        image = tf.io.decode_image(record.image, channels=3).numpy().astype(float)
        is_grey = "grey" in name or "sixteen" in name
        limit = 14 if "palette" in name or "gif" in name else 6
        assert np.abs(image - (grey if is_grey else wanted)).mean() < limit, name
        assert record.file_name.numpy().decode() == name


def exif_jpeg(orientation, size=(80, 50)):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return encoded("RGB", "JPEG", size, exif=exif, quality=95)


def test_an_image_is_rotated_only_if_the_json_has_the_rotated_size(data_set):
    data_set.add("as_stored.jpg", exif_jpeg(6), height=50, width=80)
    data_set.add("rotated.jpg", exif_jpeg(6), height=80, width=50)
    data_set.add("upside_down.jpg", exif_jpeg(3), height=50, width=80)
    data_set.add("no_reason.jpg", exif_jpeg(1), height=80, width=50)
    kept = ShardSettings(SETTINGS.canvas, GRID, keep_original=True)
    manifest = shard(data_set.job(settings=kept))
    images = [tf.io.decode_jpeg(record.image).numpy().astype(float) for record in records_of(manifest)]
    assert [image.shape[:2] for image in images] == [(50, 80), (80, 50), (50, 80)]
    assert np.abs(np.rot90(images[0], -1) - images[1]).mean() < 3
    assert np.abs(images[0] - images[2]).mean() < 3
    assert [r["reason"] for r in rejections_of(manifest) if r["kind"] == "image"] == [
        "image size differs from the json"
    ]


def test_everything_can_be_a_url(data_set):
    """ram:// stands for a bucket: it is reached through tf.io.gfile only."""
    data_set.add("a b.png", annotations=2)
    job = data_set.job("here")
    local = shard(job)
    for name in ("instances.json", "images/a b.png"):
        data = (data_set.folder / name).read_bytes()
        with tf.io.gfile.GFile(f"ram://source/{name}", "wb") as file:
            file.write(data)
    far = shard(ShardJob("ram://source/instances.json", "ram://source/images", "ram://shards/train", SETTINGS))
    assert schema.load_manifest("ram://shards/train/") == far
    assert far.files == local.files and sorted(tf.io.gfile.listdir(far.folder)) == sorted(content(local.folder))


# ---- What is rejected


def broken_data_set(data_set):
    good = data_set.add("good.png", annotations=2)
    data_set.add("empty.png", annotations=0)
    data_set.add("zero_bytes.jpg", b"")
    data_set.add("no_image.jpg", b"\x00" * 500)
    data_set.add("truncated.jpg", encoded("RGB", "JPEG")[:700])
    data_set.add("smaller.png", encoded("RGB", "PNG", (40, 25)))
    data_set.add("missing.png", b"")
    (data_set.folder / "images" / "missing.png").unlink()
    data_set.values["images"].append({"id": 1, "file_name": "twice.png", "height": 5, "width": 5})
    more = [
        box(1, good, iscrowd=1, segmentation={"size": [50, 80], "counts": [0, 400, 3600]}),
        box(2, good, ignore=1),
        box(3, good, area=0),
        box(4, good, bbox=[5, 5, 0.2, 9]),
        box(5, good, category_id=5),
        box(6, good, segmentation=[]),
        box(7, good, segmentation=[[1, 2, 3, 4]]),
        box(8, good, x=200),
        box(9, good, x=70, w=500),
        box(10, good, bbox=[float("nan"), 1, 2, 3]),
        box(10, good),
        box(12, 999),
        box(13, good, segmentation={"size": [80, 50], "counts": [4000]}),
        "not an object",
    ]
    data_set.values["annotations"] += more
    return data_set


EXPECTED = {
    "its image was rejected": 5,
    "image file is empty": 1,
    "image does not decode": 2,
    "image size differs from the json": 1,
    "image file is missing": 1,
    "duplicate image id": 1,
    "crowd": 1,
    "ignore": 1,
    "area not above 0": 1,
    "box narrower or lower than 1 pixel": 1,
    "unknown category": 1,
    "empty segmentation": 1,
    "polygon of fewer than 3 points": 1,
    "mask covers no pixel of the image": 1,
    "bbox is not four finite numbers": 1,
    "no such image": 1,
    "RLE size differs from the image": 1,
    "annotation is not an object": 1,
}


def test_everything_is_either_kept_or_rejected_with_a_reason(data_set):
    manifest = shard(broken_data_set(data_set).job())
    assert manifest.rejected == EXPECTED
    rejections = rejections_of(manifest)
    assert Counter(rejection["reason"] for rejection in rejections) == EXPECTED
    assert {r["file"] for r in rejections if r["reason"] == "image does not decode"} == {
        "no_image.jpg",
        "truncated.jpg",
    }
    by_kind = Counter(rejection["kind"] for rejection in rejections)
    assert by_kind["annotation"] + manifest.num_instances == len(data_set.values["annotations"])
    assert by_kind["image"] + manifest.num_images == len(data_set.values["images"])
    # Two boxes of good.png, the one that reaches out of it, and one with the id of another; empty.png is kept.
    assert (manifest.num_images, manifest.num_instances) == (2, 4)
    text = inspection.summary(manifest, DataConfig(max_instances=2))
    assert "4 kept, 1 crowd" in text and "random subset" in text and "1 unknown category" in text


def test_evaluation_gets_crowds_and_the_ids_of_images_and_categories(data_set):
    manifest = shard(broken_data_set(data_set).job())
    with gzip.open(manifest.annotations, "rt") as file:
        values = json.load(file)
    truth = COCO()
    truth.dataset = values
    truth.createIndex()
    assert truth.getCatIds() == [2, 9] and truth.getImgIds() == [1, 2]
    # Annotations have their places in the file as ids: seven of good images or of broken ones come first.
    assert sorted(truth.getAnnIds()) == [1, 2, 8, 9, 10, 11, 16, 18]
    assert [annotation["id"] for annotation in truth.loadAnns(truth.getAnnIds(iscrowd=True))] == [8]
    assert truth.annToMask(truth.anns[16])[5:17, 70:].all() and truth.annToMask(truth.anns[16]).sum() == 120
    assert truth.anns[1]["bbox"] == [5, 5, 20, 12]


@pytest.mark.parametrize("fault", ["missing image", "bad annotation", "no image entry"])
def test_strict_names_the_first_rejection(data_set, fault):
    image = data_set.add("a.png")
    data_set.values["annotations"].append(box(1, image, iscrowd=1))
    assert shard(data_set.job("fine", strict=True)).rejected == {"crowd": 1}
    if fault == "missing image":
        data_set.add("b.png", b"")
        message = "image 2 .b.png.: image file is empty"
    elif fault == "bad annotation":
        data_set.values["annotations"].append(box(77, image, segmentation=[]))
        message = "annotation 77 .a.png.: empty segmentation"
    else:
        data_set.values["annotations"].append(box(78, 5))
        message = "annotation 78 .no image.: no such image .image_id 5"
    with pytest.raises(schema.ShardError, match=message):
        shard(data_set.job(strict=True))
    assert not (data_set.folder / "shards" / schema.MANIFEST).exists()


def test_strict_fails_until_the_data_are_corrected(data_set):
    for number in range(4):
        data_set.add(f"{number}.png", b"" if number == 3 else None)
    job = data_set.job(num_shards=2, strict=True)
    for _ in range(2):
        with pytest.raises(schema.ShardError, match="--strict: image 4 .3.png.: image file is empty"):
            shard(job)
    kept = Path(job.output, "shard-00000-of-00002.tfrecord")
    before = kept.stat().st_mtime_ns
    smooth_image(50, 80, 4).save(data_set.folder / "images" / "3.png")
    assert shard(job).rejected == {}
    assert kept.stat().st_mtime_ns == before
    assert content(job.output) == content(shard(data_set.job("at once", num_shards=2)).folder)


@pytest.mark.parametrize("fault", ["image", "annotation"])
def test_strict_fails_on_a_folder_that_was_finished_without_it(data_set, fault):
    image = data_set.add("a.png")
    data_set.values["annotations"].append(box(1, image, iscrowd=1))
    shard(data_set.job("fine"))
    assert shard(data_set.job("fine", strict=True)).rejected == {"crowd": 1}
    if fault == "image":
        data_set.add("b.png", b"", annotations=0)
        reason = "image file is empty"
    else:
        data_set.values["annotations"].append(box(77, image, segmentation=[]))
        reason = "empty segmentation"
    finished = content(shard(data_set.job()).folder)
    for _ in range(2):
        with pytest.raises(
            schema.ShardError, match=f"--strict: .* leaves out 1 for this reason: {reason} .see its rej"
        ):
            shard(data_set.job(strict=True))
    assert content(data_set.folder / "shards") == finished


def test_a_finished_folder_outlives_a_wrong_folder_of_images(data_set, tmp_path):
    for number in range(3):
        data_set.add(f"{number}.png", b"x" if number == 1 else None)
    job = data_set.job()
    finished = content(shard(job).folder)
    shard(dataclasses.replace(job, images=str(tmp_path)))
    assert content(job.output) == finished


def test_strict_gives_a_finished_folder_up_only_where_all_of_it_is_repaired(data_set):
    for number in range(4):
        data_set.add(f"{number}.png", b"x" if number > 1 else None)
    finished = content(shard(data_set.job()).folder)
    smooth_image(50, 80, 4).save(data_set.folder / "images" / "2.png")
    with pytest.raises(schema.ShardError, match="--strict: .* leaves out 2 "):
        shard(data_set.job(strict=True))
    assert content(data_set.folder / "shards") == finished
    smooth_image(50, 80, 5).save(data_set.folder / "images" / "3.png")
    assert shard(data_set.job(strict=True)).rejected == {}


def test_strict_holds_for_what_an_interrupted_upload_left(data_set, monkeypatch, tmp_path):
    def break_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for number in range(3):
        data_set.add(f"{number}.png", b"x" if number == 1 else None)
    job = dataclasses.replace(data_set.job(), output="ram://bucket/shards")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sharding, "finish", break_off)
        shard(job)
    with pytest.raises(schema.ShardError, match="--strict: image 2 .1.png.: image does not decode"):
        shard(dataclasses.replace(job, strict=True))
    assert not schema.is_complete(job.output)


def test_images_that_are_added_or_repaired_get_into_a_finished_folder(data_set):
    for number in range(6):
        data_set.add(f"{number}.png", b"x" if number == 1 else None)
    data_set.values["images"].append({"id": 1, "file_name": "0.png", "height": 50, "width": 80})
    images = data_set.folder / "images"
    (images / "5.png").rename(data_set.folder / "5.png")
    job = data_set.job(num_shards=3)
    assert shard(job).rejected["image file is missing"] == 1
    (data_set.folder / "5.png").rename(images / "5.png")
    assert shard(job).rejected == {"image does not decode": 1, "its image was rejected": 1, "duplicate image id": 1}
    smooth_image(50, 80, 2).save(images / "1.png")
    repaired = shard(job)
    assert repaired.num_images == 6 and repaired.rejected == {"duplicate image id": 1}
    assert content(job.output) == content(shard(data_set.job("at once", num_shards=3)).folder)


def test_another_folder_of_images_is_taken_after_a_wrong_one(data_set):
    for number in range(4):
        data_set.add(f"{number}.png")
    job = data_set.job(num_shards=2)
    wrong = data_set.folder / "wrong"
    wrong.mkdir()
    with pytest.raises(schema.ShardError, match="None of the 4 images .* 0.png: image file is missing. Check --images"):
        shard(dataclasses.replace(job, images=str(wrong)))
    smooth_image(50, 80, 1).save(wrong / "0.png")
    assert shard(dataclasses.replace(job, images=str(wrong))).num_images == 1
    assert shard(job).num_images == 4
    assert content(job.output) == content(shard(data_set.job("at once", num_shards=2)).folder)


def test_a_damaged_list_of_rejections_is_named(data_set):
    data_set.add("a.png")
    data_set.add("b.png", b"")
    job = data_set.job()
    finished = content(shard(job).folder)
    Path(job.output, schema.REJECTED).write_text("{")
    with pytest.raises(schema.ShardError, match="rejected.jsonl is damaged .*; delete the file, then run the same"):
        shard(job)
    Path(job.output, schema.REJECTED).unlink()
    assert shard(job).num_images == 1
    assert content(job.output) == {name: data for name, data in finished.items() if name != schema.REJECTED}


def test_no_usable_image_at_all_is_an_error(data_set):
    data_set.add("a.png", b"x")
    data_set.add("b.png", b"")
    with pytest.raises(
        schema.ShardError, match=r"None of the 2 images .* a.png: image does not decode. Check --images"
    ):
        shard(data_set.job())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_shards": 3}, "num_shards=3 is more than the 1 images"),
        ({"num_shards": -1}, "num_shards=-1"),
        ({"settings": ShardSettings((65, 96), GRID)}, r"multiples of 32"),
        ({"settings": ShardSettings((64, 96), GRID, augmented_copies=0)}, "augmented_copies=0"),
        (
            {"settings": ShardSettings((64, 96), GRID, augmented_copies=2)},
            "augmented_copies above 1 need a recipe with",
        ),
        ({"settings": ShardSettings((64, 96), GRID, augmented_copies=2, keep_original=True)}, "keep_original"),
        ({"settings": ShardSettings((64, 96), GridConfig(sizes=(3,)))}, "model.grid has 5 levels"),
    ],
)
def test_impossible_settings_name_the_option(data_set, changes, message):
    data_set.add("a.png")
    with pytest.raises(ConfigError, match=message):
        shard(data_set.job(**changes))


def test_missing_inputs_are_named(data_set, tmp_path):
    data_set.add("a.png")
    job = data_set.job()
    with pytest.raises(ConfigError, match="folder of images .*nowhere"):
        shard(ShardJob(job.annotations, f"{tmp_path}/nowhere", job.output, SETTINGS))
    with pytest.raises(coco_json.CocoError, match="There is no file .*nowhere.json"):
        shard(ShardJob(f"{tmp_path}/nowhere.json", job.images, job.output, SETTINGS))


# ---- Views


def test_views_are_different_crops_whose_targets_belong_to_them(data_set):
    for number in range(3):
        data_set.add(f"{number}.png", height=64, width=96, annotations=3)
    augment = AugmentConfig(scale=(0.5, 1.5), crop=0.2)
    settings = ShardSettings(SETTINGS.canvas, GRID, augmented_copies=4, augment=augment, seed=3)
    manifest = shard(data_set.job(settings=settings))
    records = list(records_of(manifest))
    assert manifest.num_images == 3 and manifest.augmented_copies == 4 and len(records) == manifest.num_records == 12
    assert [int(record.image_id) for record in records] == [1] * 4 + [2] * 4 + [3] * 4
    sizes = {tuple(record.size.numpy()) for record in records}
    assert len(sizes) > 6 and all(height % 4 == width % 4 == 0 for height, width in sizes)
    for record in records:
        assert tf.io.decode_jpeg(record.image).shape[:2] == tuple(record.size.numpy())
        placement = geometry.stored_image(record.size, SETTINGS.canvas, keep_original=False, flip=True)
        moved, boxes = geometry.move_instances(record.runs, record.boxes, record.size, placement)
        wanted = make_targets(moved, boxes, record.categories, SETTINGS.canvas, GRID)
        made = schema.precomputed_targets(record, True, SETTINGS.canvas, GRID.num_cells)
        np.testing.assert_array_equal(made.masks, wanted.masks)
        np.testing.assert_array_equal(made.positives.cell, wanted.positives.cell)
    other = ShardSettings(SETTINGS.canvas, GRID, augmented_copies=4, augment=augment, seed=4)
    assert content(shard(data_set.job("other", other)).folder) != content(manifest.folder)


# ---- The same bytes, whatever happens


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A data set in 9 shards, its command line, and the content of an undisturbed run with one process."""
    data_set = DataSet(tmp_path_factory.mktemp("many") / "data")
    for number in range(90):
        data_set.add(f"{number}.jpg", height=60 + number % 30, width=90, annotations=number % 5)
    data_set.add("broken.jpg", b"x")
    job = data_set.job("undisturbed", num_shards=9)
    shard(job)
    return data_set, content(job.output)


def command(data_set, output, *more):
    config = "--config.model.grid.levels=('p2','p3','p4')", "--config.model.grid.sizes=(12,8,4)"
    ranges = "--config.model.grid.scale_ranges=((1,24),(16,48),(40,512))"
    config += ("--config.model.grid.center_sigma=0.2",)
    arguments = [f"--annotations={data_set.folder}/instances.json", f"--images={data_set.folder}/images"]
    arguments += [f"--output={output}", f"--config={ROOT}/configs/shapes_tiny.py", "--canvas=64x96", *config, ranges]
    return [sys.executable, "-m", "solo_dist", "shard", *arguments, "--num_shards=9", *more]


def test_the_program_with_two_processes_gives_the_same_bytes(many, tmp_path):
    data_set, undisturbed = many
    done = subprocess.run(command(data_set, tmp_path / "x", "--processes=2"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "x") == undisturbed
    assert "90 images in 9 shards" in done.stdout and "180 kept, 0 crowd" in done.stdout
    assert "91/91" in done.stderr and "WARNING" not in done.stderr


def test_a_second_process_is_refused_while_one_is_at_work(many, tmp_path):
    data_set, undisturbed = many
    output = tmp_path / "x"
    with claimed(str(output)):
        second = subprocess.run(command(data_set, output), cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 2 and f"{output} is in use by process {os.getpid()} on " in second.stderr
    processes = [
        subprocess.Popen(command(data_set, output), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    # The second may come when the first has finished.
    assert sorted(process.wait() for process in processes) in ([0, 0], [0, 2])
    assert content(output) == undisturbed


def kill_when(process, output, finished):
    """SIGKILL once `finished` shards have their note, or the folder exists."""
    while process.poll() is None:
        if output.exists() and len(list(Path(output, schema.PROGRESS).glob("*.note.json"))) >= finished:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.005)


def check_resuming(many, tmp_path, moments):
    data_set, undisturbed = many
    output = tmp_path / "killed"
    for finished in moments:
        process = subprocess.Popen(
            command(data_set, output, "--processes=2"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        kill_when(process, output, finished)
        assert process.returncode == -signal.SIGKILL
        with pytest.raises(schema.ShardError, match="not complete yet"):
            schema.load_manifest(str(output))
    done = subprocess.run(command(data_set, output, "--processes=2"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert content(output) == undisturbed


def test_a_killed_run_continues_to_the_same_bytes(many, tmp_path):
    check_resuming(many, tmp_path, moments=(4,))


@pytest.mark.slow
def test_ten_kills_change_nothing(many, tmp_path):
    check_resuming(many, tmp_path, moments=(0, 0, 1, 2, 3, 4, 5, 6, 7, 8))


def interrupted(many, tmp_path):
    """A folder as a kill leaves it: three shards with notes, one file half written, no manifest."""
    data_set, undisturbed = many
    job = data_set.job(str(tmp_path / "half"), num_shards=9)
    plan = sharding.plan_shards(job)
    tasks = [shard_task(plan, number, (job.images,)) for number in range(3)]
    list(sharding.make_shards(tasks, job.settings, plan.classes, 0, lambda count: None))
    Path(job.output, "shard-00003-of-00009.tfrecord.partial").write_bytes(b"half")
    return job, undisturbed


def test_finished_shards_are_verified_and_kept(many, tmp_path):
    job, undisturbed = interrupted(many, tmp_path)
    intact, damaged = (Path(job.output, f"shard-0000{i}-of-00009.tfrecord") for i in (0, 1))
    before = intact.stat().st_mtime_ns
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00")
    shard(job)
    assert intact.stat().st_mtime_ns == before
    assert content(job.output) == undisturbed


def test_a_complete_folder_is_left_alone_and_a_damaged_one_repaired(many, tmp_path):
    job, undisturbed = interrupted(many, tmp_path)
    shard(job)
    files = {path: path.stat().st_mtime_ns for path in Path(job.output).iterdir()}
    shard(job)
    assert {path: path.stat().st_mtime_ns for path in Path(job.output).iterdir()} == files
    Path(job.output, "shard-00005-of-00009.tfrecord").unlink()
    shard(dataclasses.replace(job, num_shards=0))  # as many as there are
    assert content(job.output) == undisturbed


def test_other_data_or_settings_are_refused(many, tmp_path):
    job, _ = interrupted(many, tmp_path)
    other = ShardJob(job.annotations, job.images, job.output, ShardSettings((96, 96), GRID), num_shards=9)
    with pytest.raises(schema.ShardError, match="holds shards of other data or settings"):
        shard(other)
    shard(job)
    with pytest.raises(schema.ShardError, match="holds shards of other data or settings"):
        shard(other)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "thesis.tex").write_text("x")
    with pytest.raises(schema.ShardError, match="holds other files .thesis.tex.; choose an empty --output"):
        shard(ShardJob(job.annotations, job.images, str(stranger), SETTINGS))


@pytest.mark.parametrize("text", ['{"name": "App", "icons": []}', '["App"]', "not json"])
def test_a_manifest_of_something_else_is_left_alone(many, tmp_path, text):
    data_set, _ = many
    job = data_set.job(str(tmp_path / "app"), num_shards=9)
    Path(job.output).mkdir()
    Path(job.output, "manifest.json").write_text(text)
    with pytest.raises(schema.ShardError, match="app holds other files .manifest.json.; choose an empty --output"):
        shard(job)
    assert content(job.output) == {"manifest.json": text.encode()}


@pytest.mark.parametrize("kind", ["damaged", "of another version"])
def test_other_shards_are_left_alone_even_if_they_cannot_be_read(many, tmp_path, kind):
    data_set, undisturbed = many
    job = data_set.job(str(tmp_path / "other"), num_shards=9)
    Path(job.output).mkdir()
    for name, data in undisturbed.items():
        Path(job.output, name).write_bytes(data)
    if kind == "damaged":
        Path(job.output, "shard-00003-of-00009.tfrecord").unlink()
        job = dataclasses.replace(job, num_shards=8)
    else:
        manifest = json.loads(undisturbed[schema.MANIFEST])
        manifest["fingerprint"] = manifest["fingerprint"].replace('"schema": 1', '"schema": 0')
        Path(job.output, schema.MANIFEST).write_text(json.dumps(manifest | {"schema_version": 0}))
    before = content(job.output)
    with pytest.raises(schema.ShardError, match="holds shards of other data or settings"):
        shard(job)
    assert content(job.output) == before


def test_a_full_disk_is_one_error_and_the_run_can_be_continued(many, tmp_path):
    job, undisturbed = interrupted(many, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, limits[1]))
    try:
        with pytest.raises(schema.ShardError, match="Making shards in .*half failed: .*Correct the cause"):
            shard(job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    shard(job)
    assert content(job.output) == undisturbed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--canvas=64"], "error: --canvas=64 must be HEIGHTxWIDTH in multiples of 32, for example 512x768."),
        (["--annotations=/nowhere.json"], "error: There is no file /nowhere.json; give the COCO instances json."),
    ],
)
def test_mistakes_on_the_command_line_get_one_line(many, tmp_path, changes, message):
    data_set, _ = many
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        command(data_set, tmp_path / "x", *changes), cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) <= 2


# ---- Real photos


@pytest.mark.parametrize(
    ("name", "images", "kept", "crowds", "canvas"),
    [("coco128", 128, 929, 10, (128, 128)), ("fruits_nuts18", 18, 165, 0, (128, 160))],
)
def test_real_data_sets(shared_folder, tmp_path, name, images, kept, crowds, canvas):
    source = shared_folder(name)
    grid = GridConfig()
    job = ShardJob(f"{source}/instances.json", f"{source}/images", f"{tmp_path}/x", ShardSettings(canvas, grid))
    manifest = shard(job)
    assert (manifest.num_images, manifest.num_instances) == (images, kept)
    assert manifest.rejected == ({"crowd": crowds} if crowds else {})
    statistics = manifest.statistics
    assert statistics["record_bytes"] < 1.3 * statistics["image_bytes"]
    positives = compare_with_recomputed(manifest, canvas, grid)
    assert positives == sum(statistics["positives_per_level"])


def test_shards_folder_can_be_moved(many, tmp_path):
    job, _ = interrupted(many, tmp_path)
    shard(job)
    shutil.move(job.output, tmp_path / "elsewhere")
    assert schema.load_manifest(f"{tmp_path}/elsewhere").num_images == 90
