"""The record contract and the manifest: what goes in comes out, what does not fit is named."""

import dataclasses
import json
import zlib

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import GridConfig
from solo_dist.data import schema
from solo_dist.errors import ConfigError
from solo_dist.masks import rle
from solo_dist.masks.bits import unpack_bits

CANVAS = (64, 96)
GRID = GridConfig(levels=("p2", "p3"), sizes=(4, 2), scale_ranges=((1, 30), (20, 500)))


def record_values(count=2):
    rng = np.random.default_rng(0)
    instances = [rle.dense_to_runs(rng.random((40, 90)) < 0.5) for _ in range(count)]
    run_bytes, run_counts = rle.encode_runs(instances)
    values = {
        "image": b"jpeg",
        "image_id": 2**40,
        "file_name": "größe 1.jpg".encode(),
        "size": [40, 90],
        "original_size": [80, 180],
        "canvas_size": [44, 96],
        "category": list(range(count)),
        "boxes": np.arange(4 * count, dtype="<f4").tobytes(),
        "run_counts": run_counts,
        "runs": run_bytes,
    }
    for offset, orientation in enumerate(schema.ORIENTATIONS):
        positives = np.array([[offset, 3, 17], [0, 1, 1]] if count else [[], []], "<i4")
        masks = rng.integers(0, 256, (count, 16, 3)).astype(np.uint8)
        values[f"positives_{orientation}"] = positives.tobytes()
        values[f"masks_{orientation}"] = zlib.compress(masks.tobytes())
    return values, instances


def test_a_record_comes_back_as_it_was():
    values, instances = record_values()
    record = schema.parse_record(tf.constant(schema.serialize_record(values)))
    assert record.image.numpy() == b"jpeg" and int(record.image_id) == 2**40
    assert record.file_name.numpy().decode() == "größe 1.jpg"
    for name in ("size", "original_size", "canvas_size"):
        assert getattr(record, name).numpy().tolist() == values[name]
    assert record.categories.numpy().tolist() == [0, 1]
    assert record.boxes.numpy().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for part, wanted in zip(record.runs, rle.from_numpy(instances), strict=True):
        np.testing.assert_array_equal(part, wanted)


@pytest.mark.parametrize("flipped", [False, True])
def test_precomputed_targets_are_those_of_the_orientation(flipped):
    values, _ = record_values()
    record = schema.parse_record(tf.constant(schema.serialize_record(values)))
    made = schema.precomputed_targets(record, tf.constant(flipped), CANVAS, GRID.num_cells)
    assert made.positives.cell.numpy().tolist() == [int(flipped), 3, 17]
    assert made.positives.instance.numpy().tolist() == [0, 1, 1]
    wanted_grid = np.full(GRID.num_cells, -1)
    wanted_grid[[int(flipped), 3, 17]] = [0, 1, 1]
    np.testing.assert_array_equal(made.positives.category_grid, wanted_grid)
    stored = zlib.decompress(values["masks_flipped" if flipped else "masks_plain"])
    np.testing.assert_array_equal(made.masks.numpy().ravel(), np.frombuffer(stored, np.uint8))
    assert unpack_bits(made.masks).shape == (2, 16, 24)


def test_a_record_without_instances():
    values, _ = record_values(0)
    record = schema.parse_record(tf.constant(schema.serialize_record(values)))
    made = schema.precomputed_targets(record, False, CANVAS, GRID.num_cells)
    assert record.boxes.shape == (0, 4) and made.masks.shape == (0, 16, 3) and not len(made.positives.cell)
    assert set(made.positives.category_grid.numpy()) == {-1}


def test_what_is_not_a_record_fails():
    values, _ = record_values()
    serialized = schema.serialize_record(values)
    for damaged in (serialized[:50], b"text", b""):
        with pytest.raises(tf.errors.InvalidArgumentError):
            schema.parse_record(tf.constant(damaged))


def make_folder(folder, **changes):
    """A folder with a manifest and files of the right sizes."""
    content = {"a.tfrecord": b"aaaa", schema.RECORDS: b"", schema.ANNOTATIONS: b"{}"}
    buffer = folder / schema.RECORDS
    np.save(buffer, np.array([[0, 0], [0, 2]], np.int64))
    content[schema.RECORDS] = buffer.read_bytes()
    for name, data in content.items():
        (folder / name).write_bytes(data)

    def described(name, records):
        return schema.ShardFile(name, records, len(content[name]), schema.crc32c(content[name]))

    manifest = schema.Manifest(
        schema_version=schema.SCHEMA_VERSION,
        num_images=2,
        num_instances=3,
        rejected={"crowd": 1},
        canvas=CANVAS,
        grid=GRID,
        categories=[{"id": 3, "name": "apple"}],
        files=[described("a.tfrecord", 2)],
        augmented_copies=1,
        keep_original=False,
        statistics={},
        side_files=[described(schema.RECORDS, 0), described(schema.ANNOTATIONS, 0)],
        folder=str(folder),
    )
    values = json.loads(manifest.to_json()) | changes
    (folder / schema.MANIFEST).write_text(json.dumps(values))
    return manifest


def test_a_manifest_comes_back_as_it_was(tmp_path):
    manifest = make_folder(tmp_path)
    loaded = schema.load_manifest(f"{tmp_path}/")
    assert loaded == manifest and loaded.grid == GRID and loaded.annotations == f"{tmp_path}/annotations.json.gz"
    assert schema.load_record_index(loaded).tolist() == [[0, 0], [0, 2]]


def test_a_manifest_of_an_older_version_names_the_copies_otherwise(tmp_path):
    manifest = make_folder(tmp_path)
    values = json.loads(manifest.to_json())
    values["views"] = values.pop("augmented_copies")
    (tmp_path / schema.MANIFEST).write_text(json.dumps(values))
    assert schema.load_manifest(str(tmp_path)) == manifest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 99}, "schema_version 99, this program reads 1"),
        ({"num_images": 3}, "damaged.*add up"),
        ({"files": [{"name": "a.tfrecord"}]}, "damaged"),
        ({"files": 3}, "damaged"),
        ({"side_files": []}, "side_files"),
        ({"grid": {"sizes": [1]}}, "damaged"),
        ({"grid": None}, "damaged"),
        ({"categories": [{"id": 1}]}, "damaged"),
        ({"canvas": None}, "damaged"),
        ({"stranger": 1}, "damaged"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named(tmp_path, changes, message):
    make_folder(tmp_path, **changes)
    with pytest.raises(schema.ShardError, match=message) as caught:
        schema.load_manifest(str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "shard the data again" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": 1}', "null"])
def test_a_manifest_that_is_none_is_named(tmp_path, text):
    make_folder(tmp_path)
    (tmp_path / schema.MANIFEST).write_text(text)
    with pytest.raises(schema.ShardError, match="is not a manifest of shards"):
        schema.load_manifest(str(tmp_path))


def test_missing_folders_and_files_are_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(schema.ShardError, match=r"file is a file; give the folder of shards"):
        schema.load_manifest(str(tmp_path / "file"))
    with pytest.raises(schema.ShardError, match=r"none' does not exist; make it with `solo-dist shard`"):
        schema.load_manifest(f"{tmp_path}/none")
    with pytest.raises(schema.ShardError, match="not complete yet"):
        schema.load_manifest(str(tmp_path))
    make_folder(tmp_path)
    (tmp_path / "a.tfrecord").write_bytes(b"aaa")
    with pytest.raises(schema.ShardError, match="a.tfrecord has 3 bytes, the manifest says 4"):
        schema.load_manifest(str(tmp_path))
    (tmp_path / "a.tfrecord").unlink()
    with pytest.raises(schema.ShardError, match="a.tfrecord is missing"):
        schema.load_manifest(str(tmp_path))


def test_a_damaged_index_is_named(tmp_path):
    make_folder(tmp_path)
    data = bytearray((tmp_path / schema.RECORDS).read_bytes())
    data[-5] ^= 1
    (tmp_path / schema.RECORDS).write_bytes(data)
    with pytest.raises(schema.ShardError, match="records.npy is damaged"):
        schema.load_record_index(schema.load_manifest(str(tmp_path)))


@pytest.mark.parametrize(
    ("canvas", "grid", "categories", "message"),
    [
        ((64, 64), GRID, 0, r"canvas \(64, 96\), the recipe has \(64, 64\)"),
        (CANVAS, dataclasses.replace(GRID, sizes=(5, 2)), 0, r"model.grid.sizes=\(4, 2\)"),
        (CANVAS, dataclasses.replace(GRID, center_sigma=0.3), 0, "model.grid.center_sigma=0.2"),
        (CANVAS, GRID, 80, "1 categories.*model.num_categories=80"),
    ],
)
def test_a_folder_that_does_not_fit_the_recipe_names_the_option(tmp_path, canvas, grid, categories, message):
    manifest = make_folder(tmp_path)
    with pytest.raises(ConfigError, match=message):
        manifest.check_fits(canvas, grid, categories)
