"""Images cut into tiles by the shard tool: pixels, masks, pieces that are too small, ids, and files."""

import gzip
import json
from collections import Counter

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from solo_dist.config import DataConfig, GridConfig
from solo_dist.data import schema
from solo_dist.data.input.in_order import read_records
from solo_dist.data.sharding import inspection, tiles
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.data.tiling import Tiling
from solo_dist.masks import rle

SIZE = (150, 260)
TILING = Tiling(64, 96, 0.0)
GRID = GridConfig(levels=("p3",), sizes=(8,), scale_ranges=((1, 512),))


def discs():
    """Masks, bool [n, *SIZE], of all sizes and at all edges; one fills the image."""
    rng = np.random.default_rng(3)
    y, x = np.indices(SIZE)
    masks = [np.hypot(y - cy, x - cx) < r for cy, cx, r in rng.uniform((0, 0, 4), (*SIZE, 60), (14, 3))]
    return [*masks, np.ones(SIZE, bool)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two images in tiles, the second smaller than a tile: manifest, masks, pixels."""
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    pixels = np.asarray(PIL.Image.fromarray(smooth).resize(SIZE[::-1], PIL.Image.Resampling.BICUBIC))
    (folder / "images" / "sub").mkdir(parents=True)
    PIL.Image.fromarray(pixels).save(folder / "images" / "sub" / "large.png")
    PIL.Image.fromarray(pixels[:40, :50]).save(folder / "images" / "small.png")
    masks = discs()
    rles = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    annotations = [
        {
            "id": 7,
            "image_id": 30,
            "category_id": 1 + number % 2,
            "iscrowd": int(number == 2),
            "bbox": coco_mask.toBbox(one).tolist(),
            "area": float(coco_mask.area(one)) + 0.5,
            "segmentation": {**one, "counts": one["counts"].decode()},
        }
        for number, one in enumerate(rles)
    ]
    square = {"id": 1, "image_id": 8, "category_id": 2, "segmentation": [[5, 5, 30, 5, 30, 25, 5, 25]]}
    values = {
        "images": [
            {"id": 30, "file_name": "sub/large.png", "height": SIZE[0], "width": SIZE[1]},
            {"id": 8, "file_name": "small.png", "height": 40, "width": 50},
        ],
        "annotations": [*annotations, square],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (folder / "instances.json").write_text(json.dumps(values))
    settings = ShardSettings(canvas=(64, 96), grid=GRID, keep_original=True, tiling=TILING)
    job = ShardJob(f"{folder}/instances.json", f"{folder}/images", f"{folder}/shards", settings, strict=True)
    return shard_coco(job, processes=0, progress=False), masks, pixels


@pytest.fixture(scope="module")
def truth(made):
    return json.loads(gzip.decompress(open(made[0].annotations, "rb").read()))


def test_each_tile_is_an_image(made, truth):
    manifest, _, pixels = made
    windows = TILING.windows(SIZE)
    assert manifest.num_images == manifest.num_records == len(windows) + 1 == 10
    assert manifest.tiling == schema.load_manifest(manifest.folder).tiling == TILING
    assert [(image["height"], image["width"]) for image in truth["images"]] == [(64, 96)] * 9 + [(40, 50)]
    assert truth["images"][1]["file_name"] == "sub/large_82_0_178_64.png"
    assert truth["images"][-1]["file_name"] == "small_0_0_50_40.png"
    for record, image in zip(read_records(manifest), truth["images"], strict=True):
        assert int(record.image_id) == image["id"] and record.file_name.numpy().decode() == image["file_name"]
        x, y = map(int, image["file_name"][:-4].split("_")[1:3])
        stored = tf.io.decode_jpeg(record.image).numpy().astype(int)
        shown = pixels[y : y + image["height"], x : x + image["width"]]
        assert stored.shape == shown.shape and np.abs(stored - shown).mean() < 3
    summary = inspection.summary(manifest, DataConfig())
    assert "10 tiles (64x96, overlap 0) in 1 shards" in summary


def test_masks_are_cut_to_the_pixel(made, truth):
    """Put together again, the pieces of the tiles are the masks, and each pixel is in one piece."""
    _, masks, _ = made
    found = [np.zeros(SIZE, int) for _ in masks]
    for entry in truth["annotations"]:
        place = tiles.place_in_file(entry["id"])
        if place <= len(masks):
            window = TILING.windows(SIZE)[entry["image_id"]]
            found[place - 1][window.pixels] += coco_mask.decode(entry["segmentation"])
            assert entry["category_id"] == 1 + (place - 1) % 2
    covered = np.zeros(SIZE, int)
    for window in TILING.windows(SIZE):
        covered[window.pixels] += 1
    for mask, pieces in zip(masks, found, strict=True):
        assert (pieces == mask * covered).all()
    assert len({entry["id"] for entry in truth["annotations"]}) == len(truth["annotations"])


def test_whole_instances_keep_box_and_area_and_cut_ones_get_those_of_the_piece(made, truth):
    _, masks, _ = made
    whole = 0
    for entry in truth["annotations"]:
        area = int(coco_mask.area(entry["segmentation"]))
        place = tiles.place_in_file(entry["id"])
        assert entry["bbox"] == coco_mask.toBbox(entry["segmentation"]).tolist()
        if place <= len(masks):
            is_whole = area == masks[place - 1].sum()
            whole += is_whole
            assert entry["area"] == area + 0.5 * is_whole
    assert whole >= 2


def test_small_pieces_are_counted_and_taken_as_crowds(made, truth):
    manifest, masks, _ = made
    wanted, crowds, trained = set(), set(), 0
    for number, mask in enumerate(masks):
        for tile, window in enumerate(TILING.windows(SIZE)):
            pixels = mask[window.pixels].sum()
            if pixels and pixels < 0.1 * mask.sum() and pixels < 0.01 * 64 * 96 and number != 2:
                wanted.add((number + 1, tile))
            elif pixels and number == 2:
                crowds.add((number + 1, tile))
            elif pixels:
                trained += 1
    assert len(wanted) >= 3
    assert manifest.rejected == {tiles.TOO_SMALL_PIECE: len(wanted), "crowd": 1}
    lines = [json.loads(line) for line in open(f"{manifest.folder}/rejected.jsonl")]
    assert Counter(line["number"] for line in lines if line["reason"] == tiles.TOO_SMALL_PIECE) == Counter(
        place for place, _ in wanted
    )
    pairs = {
        (tiles.place_in_file(entry["id"]), entry["image_id"]) for entry in truth["annotations"] if entry["iscrowd"]
    }
    assert pairs == wanted | crowds
    records = list(read_records(manifest))
    assert manifest.num_instances == sum(len(record.categories) for record in records) == trained + 1
    for record in records[:-1]:  # the runs are those of the cut masks
        entries = [e for e in truth["annotations"] if e["image_id"] == int(record.image_id) and not e["iscrowd"]]
        areas = rle.areas(record.runs, len(entries)).numpy().tolist()
        assert areas == [int(coco_mask.area(entry["segmentation"])) for entry in entries]
