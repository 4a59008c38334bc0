"""Hundreds of damaged jsons, images and shards: each ends in a clear error or a counted rejection."""

import copy
import io
import json
import random
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from solo_dist.config import GridConfig
from solo_dist.data import schema
from solo_dist.data.input.in_order import read_records
from solo_dist.data.schema import REJECTED
from solo_dist.data.sharding import coco_json
from solo_dist.data.sharding.annotation import clean_annotation
from solo_dist.data.sharding.catalogue import read_annotations, read_catalogue
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.data.sharding.rejection import Rejection
from solo_dist.errors import Unusable

GRID = GridConfig(levels=("p2",), sizes=(4,), scale_ranges=((1, 512),))
SIZE, CANVAS = (32, 48), (32, 64)
ODD = [
    None, True, -1, 0, 1.5, 2**31, 2**63, 2**80, -(10**30), 1e308, float("nan"), float("inf"), "", "x", "\ud800",
    "a" * 5000, [], [[]], [None], [1, 2], {}, {"size": [1]}, {"counts": "01", "size": [32, 48]},
    {"counts": [5, -5], "size": [32, 48]},
]  # fmt: skip


def polygon(x, y, side=12):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def intact():
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 32, "width": 48, "license": 3} for i in range(3)]
    annotations = []
    for number in range(6):
        mask = polygon(3 + number, 4)
        if number == 4:
            mask = {"size": [32, 48], "counts": [100, 20, 1416]}
        if number == 5:
            disc = np.hypot(*np.mgrid[-16:16, -24:24]) < 9
            mask = coco_mask.encode(np.asfortranarray(disc.astype(np.uint8)))
            mask["counts"] = mask["counts"].decode()
        values = {"id": number, "image_id": number % 3, "category_id": 1 + number % 2, "segmentation": mask}
        annotations.append(values | {"bbox": [3, 4, 12, 12], "area": 144.0, "iscrowd": int(number == 4)})
    categories = [{"id": 1, "name": "pear"}, {"id": 2, "name": "apple"}]
    return {"info": {"year": 2020}, "images": images, "annotations": annotations, "categories": categories}


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(values, rng):
    """The json with one value replaced, removed or repeated."""
    values = copy.deepcopy(values)
    path = rng.choice([path for path in places(values) if path])
    parent = values
    for key in path[:-1]:
        parent = parent[key]
    action = rng.choice(["replace", "replace", "replace", "remove", "repeat"])
    if action == "replace":
        parent[path[-1]] = copy.deepcopy(rng.choice(ODD))
    elif action == "remove" or isinstance(parent, dict):
        del parent[path[-1]]
    else:
        parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(parent[path[-1]]))
    return json.dumps(values).encode("utf-8", "surrogatepass")


def damaged(data, rng):
    """Bytes with a bit flipped, a part missing, zeroed or exchanged."""
    data = bytearray(data)
    place, length = rng.randrange(len(data)), rng.randrange(1, 60)
    action = rng.choice(["flip", "truncate", "remove", "zero", "noise"])
    if action == "flip":
        data[place] ^= 1 << rng.randrange(8)
    elif action == "truncate":
        del data[place:]
    elif action == "remove":
        del data[place : place + length]
    else:
        part = data[place : place + length]
        data[place : place + length] = bytes(len(part)) if action == "zero" else rng.randbytes(len(part))
    return bytes(data)


def check_json(path):
    """Reads a json as the shard tool does; returns the instances, or None if an error said what is wrong."""
    try:
        catalogue = read_catalogue(path)
        images = {image.id: image for image in catalogue.images}
        class_of = {category["id"]: i for i, category in enumerate(catalogue.categories)}
        kept = rejected = 0
        for entry in read_annotations(path, images):
            if isinstance(entry, Rejection):
                assert entry.reason and json.dumps(entry.id) is not None
                rejected += 1
                continue
            try:
                annotation = clean_annotation(entry, images[entry["image_id"]], class_of)
            except Unusable as error:
                assert 3 < len(str(error)) < 80, "a reason from a fixed list"
                rejected += 1
                continue
            assert np.isfinite([*annotation.bbox, annotation.area]).all()
            kept += 1
    except coco_json.CocoError as error:
        assert path in str(error) and len(str(error)) < 400 and "\n" not in str(error)
        return None
    in_file = sum(name == "annotations" for name, _ in coco_json.stream_arrays(path))
    assert kept + rejected == in_file
    return kept


def test_the_intact_json_is_kept_whole(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(intact()))
    assert check_json(str(tmp_path / "x.json")) == 6


@pytest.mark.parametrize("seed", range(200))
def test_damaged_jsons(tmp_path, seed):
    rng = random.Random(seed)
    path = tmp_path / "x.json"
    path.write_bytes(changed(intact(), rng) if seed % 2 else damaged(json.dumps(intact()).encode(), rng))
    check_json(str(path))


FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF"}


def image(kind, size=SIZE):
    pixels = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
    image = PIL.Image.fromarray(pixels).resize(size[::-1], PIL.Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, FORMATS[kind])
    return buffer.getvalue()


def write_data_set(folder, files):
    """An image and one annotation for each of the files (name, content)."""
    values = intact() | {"images": [], "annotations": []}
    for number, (name, data) in enumerate(files):
        (folder / name).write_bytes(data)
        values["images"].append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        annotation = {"id": number, "image_id": number, "category_id": 1, "segmentation": polygon(3, 4)}
        values["annotations"].append(annotation | {"bbox": [3, 4, 12, 12], "area": 144.0, "iscrowd": 0})
    (folder / "instances.json").write_text(json.dumps(values))


def test_damaged_images(tmp_path):
    files = []
    for seed in range(120):
        kind = sorted(FORMATS)[seed % len(FORMATS)]
        files.append((f"{seed}.{kind}", damaged(image(kind), random.Random(seed))))
    write_data_set(tmp_path, files)
    job = ShardJob(f"{tmp_path}/instances.json", str(tmp_path), f"{tmp_path}/shards", ShardSettings(CANVAS, GRID))
    manifest = shard_coco(job, processes=0, progress=False)
    rejected = [json.loads(line) for line in (tmp_path / "shards" / REJECTED).read_text().splitlines()]
    rejected_images = {entry["file"] for entry in rejected if entry["kind"] == "image"}
    kept = set()
    for record in read_records(manifest):
        assert tf.io.decode_jpeg(record.image, channels=3).shape == (*SIZE, 3)
        kept.add(record.file_name.numpy().decode())
    assert kept | rejected_images == {name for name, _ in files} and not kept & rejected_images
    assert len(rejected) == 2 * len(rejected_images) == sum(manifest.rejected.values())
    assert len(kept) > 10 and len(rejected_images) > 10


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_data_set(folder, [(f"{i}.jpg", image("jpg")) for i in range(6)])
    job = ShardJob(
        f"{folder}/instances.json", str(folder), f"{folder}/shards", ShardSettings(CANVAS, GRID), num_shards=3
    )
    shard_coco(job, processes=0, progress=False)
    return job


def everything_in(folder):
    manifest = schema.load_manifest(folder)
    index = schema.load_record_index(manifest)
    return manifest, index.tolist(), [record.image.numpy() for record in read_records(manifest)]


@pytest.mark.parametrize("seed", range(60))
def test_damaged_shards(shards, seed):
    """A damaged or missing file of the folder is found when it is read, and named."""
    rng = random.Random(seed)
    before = everything_in(shards.output)
    path = rng.choice(sorted(Path(shards.output).glob("*.tfrecord")) + [Path(shards.output, schema.RECORDS)])
    content = path.read_bytes()
    try:
        if seed % 6 == 0:
            path.unlink()
        else:
            path.write_bytes(damaged(content, rng))
        if path.exists() and path.read_bytes() == content:
            return  # zeroed zeros
        with pytest.raises(schema.ShardError, match=path.name):
            everything_in(shards.output)
    finally:
        path.write_bytes(content)
    assert everything_in(shards.output) == before


@pytest.mark.parametrize("seed", range(40))
def test_damaged_manifests(shards, seed):
    """A damaged manifest is refused, or names the same files."""
    path = Path(shards.output, schema.MANIFEST)
    content = path.read_bytes()
    before = everything_in(shards.output)
    try:
        path.write_bytes(damaged(content, random.Random(seed)))
        try:
            after = everything_in(shards.output)
        except schema.ShardError as error:
            assert shards.output in str(error) and len(str(error)) < 600
        else:
            assert after[1:] == before[1:] and after[0].num_images == before[0].num_images
    finally:
        path.write_bytes(content)


def test_the_shard_tool_repairs_its_folder(shards):
    folder = Path(shards.output)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    rng = random.Random(7)
    for name in sorted(set(before) - {REJECTED}):  # a report for people, which nothing reads
        (folder / name).write_bytes(damaged(before[name] + b"x", rng))
        shard_coco(shards, processes=0, progress=False)
        after = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert after == before, name
