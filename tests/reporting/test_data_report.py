"""The report of a data set, on one whose mistakes and copies were planted."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from solo_dist.config import GridConfig
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.errors import ConfigError
from solo_dist.reporting import data_counts
from solo_dist.reporting.data_report import write_data_report
from solo_dist.reporting.near_copies import find_near_copies
from solo_dist.reporting.splits import read_splits
from solo_dist.reporting.suspicious import find_suspicious
from tests.reporting.test_run_report import check_page

GRID = GridConfig(levels=("p3", "p4"), sizes=(6, 4), scale_ranges=((1, 24), (20, 512)))
CATEGORIES = [{"id": 1, "name": "pear"}, {"id": 5, "name": "<quince>"}, {"id": 9, "name": "medlar"}]


def square(x, y, side):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def photo(seed, width=64, height=48):
    """A random image of soft blots."""
    small = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return PIL.Image.fromarray(small).resize((width, height), PIL.Image.Resampling.BICUBIC)


def make_shards(folder, images, annotations):
    """Shards of images {name: image} with annotations (name, category id, polygons, crowd)."""
    folder.mkdir()
    for name, image in images.items():
        image.save(folder / name)
    ids = {name: number for number, name in enumerate(images, start=100)}
    content = {
        "images": [{"id": ids[n], "file_name": n, "height": i.height, "width": i.width} for n, i in images.items()],
        "annotations": [
            {"id": k, "image_id": ids[name], "category_id": category, "segmentation": polygons, "iscrowd": crowd}
            for k, (name, category, polygons, crowd) in enumerate(annotations, start=7)
        ],
        "categories": CATEGORIES,
    }
    (folder / "instances.json").write_text(json.dumps(content))
    job = ShardJob(f"{folder}/instances.json", str(folder), f"{folder}/shards", ShardSettings((96, 128), GRID))
    return shard_coco(job, 0, False).folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Training shards with one mistake of each kind, and validation shards with a copy of a training image."""
    parent = tmp_path_factory.mktemp("data")
    images = {"a.png": photo(1), "b.png": photo(2), "empty.png": photo(3)}
    annotations = [
        ("a.png", 1, square(4, 4, 20), 0),
        ("a.png", 1, square(4, 4, 20), 0),
        ("a.png", 5, square(30, 20, 20), 0),
        ("a.png", 1, square(30, 20, 20), 0),
        ("a.png", 1, square(50, 2, 1), 0),
        ("b.png", 5, [[0, 0, 64, 0, 64, 48, 0, 48]], 0),
        ("b.png", 5, [[10, 10, 40, 40, 40, 10, 10, 40]], 0),
        ("b.png", 9, square(2, 2, 40), 1),
    ]
    train = make_shards(parent / "train", images, annotations)
    copy = photo(1, 128, 96)
    validation = {"copy.jpg": copy, "c.png": photo(4)}
    return [train, make_shards(parent / "validation", validation, [("c.png", 1, square(10, 10, 24), 0)])]


@pytest.fixture(scope="module")
def splits(folders):
    return read_splits(folders)[0]


def test_planted_mistakes_are_found(splits):
    found = find_suspicious(splits)
    named = {kind: [(number, one.file, int(splits[number].entry[one.truth])) for number, one in group]
             for kind, group in found.items()}  # fmt: skip
    assert named == {
        "tiny": [(0, "a.png", 5)],
        "whole image": [(0, "b.png", 6)],
        "annotated twice": [(0, "a.png", 2)],
        "two names": [(0, "a.png", 4)],
        "outline crosses itself": [(0, "b.png", 7)],
    }


def test_a_copy_in_another_split_is_a_leak(splits):
    pairs, unreadable = find_near_copies(splits)
    assert unreadable == 0 and len(pairs) == 1
    assert pairs[0].leak and (pairs[0].one, pairs[0].other) == ((0, 100), (1, 100))
    assert find_near_copies(splits[:1]).pairs == []


def test_counts_are_those_of_the_annotations(splits):
    rows = {row.name: row for row in data_counts.count_categories(splits, [c["name"] for c in CATEGORIES])}
    assert (rows["pear"].instances, rows["pear"].images, rows["pear"].crowds) == ([4, 1], [1, 1], 0)
    assert (rows["<quince>"].instances, rows["<quince>"].images) == ([3, 0], [2, 0])
    assert rows["medlar"].instances == [0, 0] and rows["medlar"].crowds == 1 and np.isnan(rows["medlar"].side)
    # The canvas is twice as large as the images: sides of 2, 40, 40, 40 and 48 pixels on it.
    assert rows["pear"].side == pytest.approx(40)
    train, validation = map(data_counts.count_split, splits)
    assert train._replace(crowding=[]) == data_counts.SplitCounts(
        "train/shards", 3, 1, 7, 1, [6, 1, 0], 1, [], 5, "48 x 64"
    )
    assert train.crowding == [0, 1, 1, 0, 0, 0]
    assert (validation.empty, validation.image_sizes) == (1, "48 x 64 to 96 x 128")
    assert data_counts.position_map(splits).sum() == 8
    for histogram in (data_counts.size_histogram, data_counts.aspect_histogram):
        assert histogram(splits[0]).sum() == pytest.approx(1)


def test_the_page_and_its_files(folders, tmp_path):
    page = write_data_report(folders, str(tmp_path / "out"))
    parts, text = check_page(page)
    assert parts == ["splits", "categories", "shapes", "copies", "suspicious", "grid"]
    assert "1 images leak into another split" in text and "5 annotations to look at" in text
    assert "<quince>" in text and "&lt;quince&gt;" in open(page, encoding="utf-8").read()
    data = json.loads((tmp_path / "out" / "data.json").read_text())
    assert data["leaks"] == 1 and sum(data["suspicious"].values()) == 5
    assert [row["sizes"] for row in data["splits"][0]["grids"]] == [[6, 4], [9, 6], [12, 8]]
    rows = {name: list(csv.DictReader(io.StringIO((tmp_path / "out" / name).read_text())))
            for name in ("categories.csv", "images.csv", "suspicious.csv", "near_copies.csv")}  # fmt: skip
    assert {name: len(lines) for name, lines in rows.items()} == {
        "categories.csv": 3, "images.csv": 5, "suspicious.csv": 5, "near_copies.csv": 1
    }  # fmt: skip
    assert rows["near_copies.csv"][0]["other_file_name"] == "copy.jpg"


def test_one_split(folders, tmp_path):
    _, text = check_page(write_data_report(folders[1:], str(tmp_path)))
    assert "No annotation looks wrong" in text and "Give the other splits too" in text


def test_the_command(folders, tmp_path):
    command = [sys.executable, "-m", "solo_dist", "inspect", *(f"--shards={folder}" for folder in folders)]
    done = subprocess.run([*command, "--report", f"--output={tmp_path}"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"Report: {tmp_path}/index.html"


def test_a_folder_given_twice(folders):
    with pytest.raises(ConfigError, match="names a folder twice"):
        read_splits([folders[0], folders[0] + "/"])
