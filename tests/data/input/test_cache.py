"""The cache of shards, when many threads use it at once. With stores: test_object_stores.py."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from solo_dist.config import GridConfig
from solo_dist.data.input import cache
from solo_dist.data.input.cache import CachedShards
from solo_dist.data.schema import SCHEMA_VERSION, Manifest, ShardFile
from solo_dist.storage.atomic import checksum

SHARDS, BYTES, ROOM = 24, 3000, 12


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    folder, files = tmp_path / "shards", []
    folder.mkdir()
    for number in range(SHARDS):
        path = folder / f"{number:02d}.tfrecord"
        path.write_bytes(os.urandom(BYTES))
        files.append(ShardFile(path.name, 1, BYTES, checksum(str(path))))
    counts = {"num_images": SHARDS, "num_instances": 0, "rejected": {}, "statistics": {}}
    geometry = {"canvas": (64, 64), "grid": GridConfig(), "augmented_copies": 1, "keep_original": False}
    return Manifest(SCHEMA_VERSION, categories=[], files=files, side_files=[], folder=str(folder), **counts, **geometry)


def test_threads_fill_it_to_its_bound_and_not_beyond(manifest, tmp_path, caplog):
    for attempt in range(20):  # before renaming was locked, two in five kept a shard too many
        caplog.clear()
        folder = tmp_path / str(attempt)
        shards = CachedShards(manifest, str(folder), ROOM * BYTES + BYTES // 2)
        with ThreadPoolExecutor(8) as threads:
            paths = list(threads.map(shards.path, range(SHARDS)))
        copies = sorted(str(path) for path in folder.glob("*.tfrecord"))
        assert len(copies) == ROOM and sorted(path for path in paths if path.startswith(str(folder))) == copies
        assert caplog.text.count("is full (data.cache_bytes=") == 1
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(shards.path, range(SHARDS))) == paths


def test_a_copy_that_is_deleted_while_it_is_verified_is_fetched_again(manifest, tmp_path, monkeypatch, caplog):
    copy = CachedShards(manifest, str(tmp_path / "cache"), 1 << 20).path(0)

    def late(path):
        monkeypatch.undo()
        os.remove(path)
        return checksum(path)

    monkeypatch.setattr(cache, "checksum", late)
    assert CachedShards(manifest, str(tmp_path / "cache"), 1 << 20).path(0) == copy and os.path.exists(copy)
    assert caplog.text.count("fetched again") == 1


def test_a_shard_whose_checksum_is_another_is_read_from_its_folder(manifest, tmp_path, caplog):
    wrong = dataclasses.replace(manifest.files[0], crc32c="00000000")
    manifest = dataclasses.replace(manifest, files=[wrong, *manifest.files[1:]])
    shards = CachedShards(manifest, str(tmp_path / "cache"), 1 << 20)
    assert shards.path(0) == f"{manifest.folder}/{wrong.name}" and "the manifest says 00000000" in caplog.text
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock", ".lock"]
