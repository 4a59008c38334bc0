"""The input pipeline: batches, order, restoring, workers, broken records. Shards are made by the real tool."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from solo_dist.config import AugmentConfig, Config, DataConfig, GridConfig, ModelConfig
from solo_dist.data import augmentation, schema
from solo_dist.data.input import element, pipeline, reader
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.errors import ConfigError

CANVAS = (64, 96)
GRID = GridConfig(levels=("p2", "p3"), sizes=(12, 6), scale_ranges=((1, 30), (20, 2000)))
COLOURS = {1: (250, 10, 10), 5: (10, 250, 10), 9: (10, 10, 250)}
NUM_IMAGES = 11
EVERYTHING = AugmentConfig(
    brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, scale=(0.5, 1.5), crop=0.2, short_sides=(40, 56)
)

Batch = dict[str, np.ndarray]


def make_coco(folder: Path, num_images: int = NUM_IMAGES, instances: int = 4, zoom: int = 1) -> None:
    """Images of flat rectangles, each in the colour of its category, none over another, and their instances.json."""
    rng = np.random.default_rng(5)
    images: list[dict] = []
    annotations: list[dict] = []
    for number in range(num_images):
        width, height = zoom * int(rng.integers(60, 160)), zoom * int(rng.integers(60, 120))
        image = np.full((height, width, 3), 128, np.uint8)
        column = width / instances
        for k in range(instances):
            category = int(rng.choice(list(COLOURS)))
            x, y = int(k * column) + 1, int(rng.integers(0, height // 2))
            w, h = int(column) - 2, int(rng.integers(12 * zoom, height // 2))
            image[y : y + h, x : x + w] = COLOURS[category]
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 100 + number, "category_id": category, "iscrowd": 0}
                | {"segmentation": [polygon], "bbox": [x, y, w, h], "area": w * h}
            )
        images.append({"id": 100 + number, "file_name": f"{number}.png", "width": width, "height": height})
        folder.mkdir(exist_ok=True)
        PIL.Image.fromarray(image).save(folder / f"{number}.png")
    categories = [{"id": number, "name": f"kind {number}"} for number in COLOURS]
    values = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(values))


def shard(source: Path, output: Path, **settings: Any) -> str:
    settings = {"canvas": CANVAS, "grid": GRID} | settings
    num_shards = settings.pop("num_shards", 3)
    shard_coco(
        ShardJob(
            str(source / "instances.json"), str(source), str(output), ShardSettings(**settings), num_shards=num_shards
        ),
        processes=0,
        progress=False,
    )
    return str(output)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    make_coco(folder / "images")
    return folder / "images"


@pytest.fixture(scope="module")
def shards(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return shard(source, tmp_path_factory.mktemp("shards") / "fitted")


@pytest.fixture(scope="module")
def whole_shards(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return shard(source, tmp_path_factory.mktemp("shards") / "whole", keep_original=True)


@pytest.fixture(scope="module")
def large_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Whole images that are shrunk by 4 or 8 on decoding."""
    folder = tmp_path_factory.mktemp("large")
    make_coco(folder / "images", num_images=5, zoom=9)
    return shard(folder / "images", folder / "shards", keep_original=True)


def recipe(folder: str, augment: AugmentConfig | None = None, seed: int = 0, **data: Any) -> Config:
    data = {"canvas": CANVAS, "max_instances": 6, "max_positives": 64} | data
    augment = augment or AugmentConfig(flip=False)
    return Config(
        seed=seed,
        data=DataConfig(train=folder, validation=folder, augment=augment, **data),
        model=ModelConfig(grid=GRID),
    )


@pytest.fixture(scope="module")
def plain(shards: str) -> Batch:
    """All images in order, as they are stored."""
    return read(pipeline.build_dataset(recipe(shards, shuffle=False), "train", batch_size=NUM_IMAGES), 1)[0]


def read(dataset: tf.data.Dataset, count: int) -> list[Batch]:
    return [{key: value.numpy() for key, value in batch.items()} for batch in dataset.take(count)]


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def ids(batches: list[Batch]) -> list[int]:
    return np.concatenate([batch["image_id"] for batch in batches]).tolist()


def unpack(masks: np.ndarray) -> np.ndarray:
    return np.unpackbits(masks, axis=-1).astype(bool)


# ---- The contract


def test_batch_is_the_contract(shards):
    batch = read(pipeline.build_dataset(recipe(shards), "train", batch_size=3), 1)[0]
    height, width = CANVAS
    wanted = {
        "image": (np.uint8, (3, height, width, 3)),
        "image_size": (np.int32, (3, 2)),
        "category_grid": (np.int32, (3, 12 * 12 + 6 * 6)),
        "positive_cell": (np.int32, (3, 64)),
        "positive_instance": (np.int32, (3, 64)),
        "masks": (np.uint8, (3, 6, height // 4, width // 4 // 8)),
        "image_id": (np.int64, (3,)),
        "original_size": (np.int32, (3, 2)),
        "position": (np.int64, (3,)),
        "dropped_positives": (np.int32, (3,)),
        "bad_records": (np.int32, (3,)),
    }
    assert {key: (value.dtype.type, value.shape) for key, value in batch.items()} == wanted


@pytest.mark.parametrize(
    "augment", [AugmentConfig(flip=False), pytest.param(AugmentConfig(mosaic=0.5), marks=pytest.mark.slow)]
)
def test_coverage_instead_of_bits_changes_the_masks_alone(augment, whole_shards):
    config = recipe(whole_shards, augment)
    of_bits = read(pipeline.build_dataset(config, "train", batch_size=4), 2)
    config.loss.mask_target = "coverage"
    of_coverage = read(pipeline.build_dataset(config, "train", batch_size=4), 2)
    bits, coverage = (np.concatenate([batch.pop("masks") for batch in every]) for every in (of_bits, of_coverage))
    assert_same(of_bits, of_coverage)
    bits = unpack(bits)
    assert bits.any() and bits[coverage == 16].all() and not bits[coverage == 0].any()
    assert ((coverage > 0) & (coverage < 16)).any()


def test_static_shapes(shards):
    spec = pipeline.build_dataset(recipe(shards, EVERYTHING), "train", batch_size=3).element_spec
    assert all(value.shape.is_fully_defined() for value in spec.values())


@pytest.mark.parametrize(
    "augment",
    [AugmentConfig(flip=False), AugmentConfig(flip=True), AugmentConfig(scale=(0.6, 1.6), crop=0.2)],
    ids=["plain", "flip", "everything"],
)
@pytest.mark.parametrize("kind", ["fitted", "whole", "large"])
def test_masks_and_categories_lie_on_their_objects(augment, kind, shards, whole_shards, large_shards):
    """Objects are flat and in the colour of their category, so that image, masks and cells check one another."""
    config = recipe({"fitted": shards, "whole": whole_shards, "large": large_shards}[kind], augment)
    colours = np.array([COLOURS[number] for number in sorted(COLOURS)], float)
    seen = 0
    for batch in read(pipeline.build_dataset(config, "train", batch_size=4), 8):
        masks = unpack(batch["masks"])
        for b, image in enumerate(batch["image"].astype(float)):
            quarter = image.reshape(CANVAS[0] // 4, 4, CANVAS[1] // 4, 4, 3).mean((1, 3))
            cells, instances = (batch[f"positive_{part}"][b] for part in ("cell", "instance"))
            for cell, instance in zip(cells[cells >= 0], instances[cells >= 0], strict=True):
                mask = masks[b, instance]
                inner = mask & np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1)
                if inner.sum() < 2:
                    continue
                seen += 1
                colour = quarter[inner].mean(0)
                category = batch["category_grid"][b, cell]
                assert np.abs(colour - colours[category]).max() < 40
                _assert_centre_in_cell(mask, cell)
    assert seen > 100


def _positives(batch: Batch, b: int) -> list[tuple[int, int]]:
    """Cell and instance of each positive of an image."""
    cells, owners = (batch[f"positive_{part}"][b].tolist() for part in ("cell", "instance"))
    return [(cell, owner) for cell, owner in zip(cells, owners, strict=True) if cell >= 0]


def _assert_centre_in_cell(mask: np.ndarray, cell: int) -> None:
    """The positive cell is within one cell of the mask's centre."""
    size, index = (12, cell) if cell < 144 else (6, cell - 144)
    ys, xs = np.nonzero(mask)
    assert abs((ys.mean() + 0.5) / mask.shape[0] * size - (index // size + 0.5)) < 1.7
    assert abs((xs.mean() + 0.5) / mask.shape[1] * size - (index % size + 0.5)) < 1.7


def test_flip_mirrors_the_picture_within_its_width(shards, plain):
    config = recipe(shards, AugmentConfig(), shuffle=False)
    batches = read(pipeline.build_dataset(config, "train", batch_size=NUM_IMAGES), 6)
    flipped = 0
    for batch in batches:
        for b, (height, width) in enumerate(batch["image_size"]):
            same, mirrored = (plain["image"][b, :height, :width][:, ::step] for step in (1, -1))
            image = batch["image"][b, :height, :width]
            masks, wanted = unpack(batch["masks"][b])[:, : height // 4, : width // 4], unpack(plain["masks"][b])
            wanted = wanted[:, : height // 4, : width // 4]
            if (image == mirrored).all():
                flipped += 1
                np.testing.assert_array_equal(masks, wanted[:, :, ::-1])
            else:
                np.testing.assert_array_equal(image, same)
                np.testing.assert_array_equal(masks, wanted)
    assert 0.3 < flipped / (6 * NUM_IMAGES) < 0.7


@pytest.mark.parametrize("keep_original", [False, True])
def test_turned_elements_are_those_of_the_turned_image(keep_original, source, tmp_path):
    square = (64, 64)
    folder = shard(source, tmp_path / "shards", canvas=square, keep_original=keep_original)
    plain, turning = (
        recipe(folder, AugmentConfig(flip=False, turn=turn), canvas=square, shuffle=False) for turn in (False, True)
    )
    before = read(pipeline.build_dataset(plain, "train", batch_size=NUM_IMAGES), 1)[0]
    seen = set()
    for batch in read(pipeline.build_dataset(turning, "train", batch_size=NUM_IMAGES), 3):
        for b, (height, width) in enumerate(before["image_size"]):
            image, masks = before["image"][b, :height, :width], unpack(before["masks"][b])
            draws = augmentation.draw(turning.seed, tf.constant(batch["position"][b]))
            turns = int(draws.turn * 4)
            seen.add(turns)
            wanted = np.rot90(image, turns)
            height, width = wanted.shape[:2]
            np.testing.assert_array_equal(batch["image_size"][b], [height, width])
            np.testing.assert_array_equal(batch["image"][b, :height, :width], wanted)
            masks = np.rot90(masks[:, : image.shape[0] // 4, : image.shape[1] // 4], turns, axes=(1, 2))
            turned = unpack(batch["masks"][b])
            np.testing.assert_array_equal(turned[:, : height // 4, : width // 4], masks)
            assert turned.sum() == masks.sum()
            category = {owner: before["category_grid"][b, cell] for cell, owner in _positives(before, b)}
            assert category
            for cell, owner in _positives(batch, b):
                _assert_centre_in_cell(turned[owner], cell)
                assert batch["category_grid"][b, cell] == category[owner]
    assert seen == {0, 1, 2, 3}


# ---- Two paths, one truth


def assert_paths_agree(config: Config, count: int) -> None:
    """Precomputed and recomputed elements of the first `count` records, plain and flipped, are the same bits."""
    manifest = pipeline.load_split(config, "train")
    records = reader.RecordReader(manifest, 0, element.reduction(config, manifest, training=True))
    # Stored targets of other grids than the recipe's cannot be used.
    other = dataclasses.replace(manifest, grid=dataclasses.replace(manifest.grid, center_sigma=0.9))
    assert manifest.grid == config.model.grid != other.grid
    paths = [element.record_to_element(config, one, training=True) for one in (manifest, other)]

    @tf.function(autograph=False)
    def both(number: tf.Tensor, position: tf.Tensor) -> list[dict[str, tf.Tensor]]:
        image, _ = records.read(number)
        return [path(schema.parse_record(image.serialized), image.image, position) for path in paths]

    positions = _one_plain_one_flipped(config)
    for number in range(count):
        for position in positions:
            stored, made = both(tf.constant(number, tf.int64), tf.constant(position, tf.int64))
            assert_same([stored], [made])


def _one_plain_one_flipped(config: Config) -> list[int]:
    draws = [float(augmentation.draw(config.seed, tf.constant(p, tf.int64)).flip) for p in range(50)]
    return [next(p for p, draw in enumerate(draws) if (draw < 0.5) == flipped) for flipped in (False, True)]


def test_both_paths_agree(shards):
    assert_paths_agree(recipe(shards, AugmentConfig()), NUM_IMAGES)


def test_both_paths_agree_on_whole_images(large_shards):
    assert_paths_agree(recipe(large_shards, AugmentConfig()), 5)


def _real_recipe(source: Path, output: Path, limit: int | None, **settings: Any) -> tuple[Config, int]:
    values = json.loads((source / "instances.json").read_text())
    values["images"] = values["images"][:limit]
    kept = {image["id"] for image in values["images"]}
    values["annotations"] = [entry for entry in values["annotations"] if entry["image_id"] in kept]
    output.mkdir(exist_ok=True)
    (output / "part.json").write_text(json.dumps(values))
    canvas, folder = (256, 256), str(output / "shards")
    job = ShardJob(
        str(output / "part.json"),
        str(source / "images"),
        folder,
        ShardSettings(canvas, GridConfig(), **settings),
    )
    manifest = shard_coco(job, processes=0, progress=False)
    config = Config(data=DataConfig(train=folder, canvas=canvas, max_instances=100, max_positives=1000))
    return config, manifest.num_images


@pytest.mark.parametrize("keep_original", [False, True], ids=["fitted", "whole"])
@pytest.mark.parametrize("name", ["coco128", "fruits_nuts18"])
def test_both_paths_agree_on_some_real_images(name, keep_original, shared_folder, tmp_path):
    assert_paths_agree(*_real_recipe(shared_folder(name), tmp_path, 5, keep_original=keep_original))


@pytest.mark.slow
@pytest.mark.parametrize("keep_original", [False, True], ids=["fitted", "whole"])
@pytest.mark.parametrize("name", ["coco128", "fruits_nuts18"])
def test_both_paths_agree_on_all_real_images(name, keep_original, shared_folder, tmp_path):
    assert_paths_agree(*_real_recipe(shared_folder(name), tmp_path, None, keep_original=keep_original))


def test_whole_images_fit_any_canvas_and_grids(whole_shards):
    config = recipe(whole_shards, canvas=(96, 64), max_positives=128)
    config.model.grid = GridConfig(levels=("p3",), sizes=(9,), scale_ranges=((1, 2000),))
    batch = read(pipeline.build_dataset(config, "train", batch_size=4), 1)[0]
    assert batch["image"].shape == (4, 96, 64, 3) and batch["category_grid"].shape == (4, 81)
    assert (batch["image_size"].max(1) >= 64).all() and (batch["positive_cell"] >= 0).any(1).all()


# ---- Sampler


def test_an_epoch_holds_every_image_once_and_epochs_differ(shards):
    dataset = pipeline.build_dataset(recipe(shards, seed=3), "train", batch_size=4)
    order = ids(read(dataset, NUM_IMAGES))
    epochs = [order[i : i + NUM_IMAGES] for i in range(0, len(order), NUM_IMAGES)]
    everything = list(range(100, 100 + NUM_IMAGES))
    assert len(epochs) == 4 and all(sorted(epoch) == everything for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4 and epochs[0] != everything


def test_order_depends_on_the_seed_and_shuffle_can_be_off(shards):
    def order(seed: int, shuffle: bool) -> list[int]:
        config = recipe(shards, seed=seed, shuffle=shuffle)
        return ids(read(pipeline.build_dataset(config, "train", batch_size=NUM_IMAGES), 2))

    assert order(1, True) != order(2, True)
    assert order(1, False) == [*range(100, 100 + NUM_IMAGES)] * 2


def test_the_same_batches_for_any_parallelism(shards):
    def batches(parallelism: int) -> list[Batch]:
        config = recipe(shards, EVERYTHING)
        return read(pipeline.build_dataset(config, "train", batch_size=4, parallelism=parallelism), 6)

    reference = batches(1)
    assert_same(batches(2), reference)
    assert_same(batches(tf.data.AUTOTUNE), reference)


def _assert_restoring(shards: str, augment: AugmentConfig, count: int) -> None:
    config, size = recipe(shards, augment), 3
    reference = read(pipeline.build_dataset(config, "train", batch_size=size), 42)
    for step in np.random.default_rng(0).choice(40, count, replace=False):
        restored = pipeline.build_dataset(config, "train", batch_size=size, start_position=int(step) * size)
        assert_same(read(restored, 2), reference[step : step + 2])


def test_restoring_gives_the_batches_of_an_uninterrupted_run(shards):
    _assert_restoring(shards, AugmentConfig(brightness=0.2), 3)


@pytest.mark.slow
def test_restoring_at_any_of_20_steps_gives_the_batches_of_an_uninterrupted_run(shards):
    _assert_restoring(shards, EVERYTHING, 20)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_an_epoch(workers, shards):
    config, size = recipe(shards, AugmentConfig(brightness=0.2), seed=1), 2
    steps = -(-2 * NUM_IMAGES // (size * workers))
    parts = [
        read(pipeline.build_dataset(config, "train", worker=w, num_workers=workers, batch_size=size), steps)
        for w in range(workers)
    ]
    together = read(pipeline.build_dataset(config, "train", batch_size=size * workers), steps)
    for step, batch in enumerate(together):
        joined = {key: np.concatenate([part[step][key] for part in parts]) for key in batch}
        assert_same([joined], [batch])
    positions = np.concatenate([batch["position"] for part in parts for batch in part])
    found = np.concatenate([batch["image_id"] for part in parts for batch in part])
    for epoch in range(2):
        assert sorted(found[positions // NUM_IMAGES == epoch]) == list(range(100, 100 + NUM_IMAGES))


def test_batch_size_is_the_workers_share_of_the_global_batch(shards):
    config = recipe(shards)
    config.train.global_batch = 6
    assert pipeline.build_dataset(config, "train", num_workers=3).element_spec["image"].shape[0] == 2
    with pytest.raises(ConfigError, match="train.global_batch=6 must be a multiple of the 4 workers"):
        pipeline.build_dataset(config, "train", num_workers=4)


def test_each_epoch_uses_the_next_view(source, tmp_path):
    folder = shard(source, tmp_path / "views", augmented_copies=3, augment=AugmentConfig(scale=(0.5, 1.0)))
    batches = read(pipeline.build_dataset(recipe(folder, shuffle=False), "train", batch_size=NUM_IMAGES), 6)
    sizes = [batch["image_size"].tolist() for batch in batches]
    assert [ids([batch]) for batch in batches] == [[*range(100, 100 + NUM_IMAGES)]] * 6
    assert len({str(size) for size in sizes[:3]}) == 3 and sizes[:3] == sizes[3:]


# ---- Validation


@pytest.mark.parametrize("workers", [1, 2])
def test_validation_visits_each_image_once_in_order(workers, shards, plain):
    config, size = recipe(shards, EVERYTHING), 4
    parts = [
        read(pipeline.build_dataset(config, "validation", worker=w, num_workers=workers, batch_size=size), 100)
        for w in range(workers)
    ]
    assert {len(part) for part in parts} == {-(-NUM_IMAGES // (size * workers))}
    order = [number for batches in zip(*parts, strict=True) for number in ids(list(batches))]
    assert order == [*range(100, 100 + NUM_IMAGES)] + [schema.NO_IMAGE] * (len(order) - NUM_IMAGES)
    first = np.concatenate([part[0]["image"] for part in parts])
    np.testing.assert_array_equal(first, plain["image"][: size * workers])


# ---- More than fits


def test_positives_beyond_the_limit_are_a_random_subset_and_counted(shards, plain):
    config = recipe(shards, shuffle=False, max_positives=5)
    first, second = read(pipeline.build_dataset(config, "train", batch_size=NUM_IMAGES), 2)
    counts = (plain["positive_cell"] >= 0).sum(1)
    assert (counts > 5).any()
    np.testing.assert_array_equal(first["dropped_positives"], np.maximum(counts - 5, 0))
    for b in range(NUM_IMAGES):
        everything = list(zip(plain["positive_cell"][b], plain["positive_instance"][b], strict=True))
        kept = [
            pair for pair in zip(first["positive_cell"][b], first["positive_instance"][b], strict=True) if pair[0] >= 0
        ]
        assert len(kept) == min(counts[b], 5) and set(kept) <= set(everything)
    assert (first["positive_cell"] != second["positive_cell"]).any(), "the same subset in every epoch"
    np.testing.assert_array_equal(first["category_grid"], plain["category_grid"])


def test_instances_beyond_the_limit_are_dropped_with_their_positives_and_counted(shards, plain):
    config = recipe(shards, shuffle=False, max_instances=2)
    few = read(pipeline.build_dataset(config, "train", batch_size=NUM_IMAGES), 1)[0]
    for b in range(NUM_IMAGES):
        kept = few["positive_cell"][b] >= 0
        assert few["dropped_positives"][b] == (plain["positive_cell"][b] >= 0).sum() - kept.sum()
        used = np.unique(few["positive_instance"][b][kept])
        assert len(used) == 2 and kept.any()
        # Each kept positive still leads to the mask that it had.
        before = {
            (cell, plain["masks"][b, i].tobytes())
            for cell, i in zip(plain["positive_cell"][b], plain["positive_instance"][b], strict=True)
        }
        after = {
            (cell, few["masks"][b, i].tobytes())
            for cell, i in zip(few["positive_cell"][b][kept], few["positive_instance"][b][kept], strict=True)
        }
        assert after <= before


# ---- Broken records


def damage(folder: str, record: int, place: str, tmp_path: Path) -> str:
    """A copy of the folder with one bit of a record turned; returns its path."""
    copy = tmp_path / "damaged"
    copy.mkdir()
    for name in tf.io.gfile.listdir(folder):
        tf.io.gfile.copy(f"{folder}/{name}", f"{copy}/{name}")
    manifest = schema.load_manifest(folder)
    number, offset = schema.load_record_index(manifest)[record]
    path = copy / manifest.files[number].name
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[offset : offset + 8], "little")
    data[offset + {"length": 0, "length checksum": 9, "data": 12 + length // 2, "checksum": 12 + length}[place]] ^= 4
    path.write_bytes(data)
    return str(copy)


PLACES = ["length", "length checksum", "data", "checksum"]


@pytest.mark.parametrize("place", PLACES)
def test_a_broken_record_stops_reading_by_name(place, shards, tmp_path):
    folder = damage(shards, 5, place, tmp_path)
    dataset = pipeline.build_dataset(recipe(folder), "train", batch_size=4)
    with (
        pytest.raises(
            schema.ShardError, match=r"^1 broken records.*max_bad_records=0: record 2 of .*shard-00001.*\. Shard"
        ),
        reader.readable_errors(),
    ):
        read(dataset, 4)


def test_a_tolerated_broken_record_is_replaced_reported_and_counted(shards, plain, tmp_path, capfd):
    folder = damage(shards, 5, "data", tmp_path)
    config = recipe(folder, shuffle=False, max_bad_records=1)
    # Two epochs: meeting the same record again does not count again.
    batches = read(pipeline.build_dataset(config, "train", batch_size=NUM_IMAGES), 2)
    for batch in batches:
        np.testing.assert_array_equal(batch["bad_records"], np.arange(NUM_IMAGES) == 5)
        replaced = np.where(np.arange(NUM_IMAGES) == 5, 6, np.arange(NUM_IMAGES))
        for key in ("image", "image_id", "masks", "positive_cell"):
            np.testing.assert_array_equal(batch[key], plain[key][replaced])
    assert "record 2 of" in capfd.readouterr().err


def test_one_broken_record_too_many(shards, tmp_path):
    folder = _damage_two(shards, tmp_path)
    with reader.readable_errors():
        read(pipeline.build_dataset(recipe(folder, max_bad_records=2), "train", batch_size=4), 9)
    with (
        pytest.raises(
            schema.ShardError, match=r"2 broken records, data.max_bad_records=1: record \d of .*record \d of"
        ),
        reader.readable_errors(),
    ):
        read(pipeline.build_dataset(recipe(folder, max_bad_records=1), "train", batch_size=4), 9)


def _damage_two(shards: str, tmp_path: Path) -> str:
    first = tmp_path / "first"
    first.mkdir()
    second = tmp_path / "second"
    second.mkdir()
    return damage(damage(shards, 2, "data", first), 7, "checksum", second)


def _broken_by(rng: np.random.Generator, data: bytes) -> bytes:
    """A shard with a bit turned, its end missing, or a part zeroed or overwritten."""
    changed, place = bytearray(data), int(rng.integers(len(data)))
    part = slice(place, place + int(rng.integers(1, 200)))
    match rng.integers(4):
        case 0:
            changed[place] ^= 1 << int(rng.integers(8))
        case 1:
            del changed[place:]
        case 2:
            changed[part] = bytes(len(changed[part]))
        case _:
            changed[part] = rng.bytes(len(changed[part]))
    return bytes(changed)


def test_each_record_of_a_damaged_shard_is_as_it_was_or_named(shards, tmp_path):
    for name in tf.io.gfile.listdir(shards):
        tf.io.gfile.copy(f"{shards}/{name}", f"{tmp_path}/{name}")
    manifest = schema.load_manifest(str(tmp_path))
    records = reader.RecordReader(manifest, 0)
    read_one = tf.function(lambda number: records.read(number)[0].serialized, autograph=False)
    numbers = [tf.constant(number, tf.int64) for number in range(NUM_IMAGES)]
    intact = [read_one(number).numpy() for number in numbers]
    rng, errors = np.random.default_rng(0), 0
    for case in range(80):
        path = tmp_path / manifest.files[case % 3].name
        whole = path.read_bytes()
        path.write_bytes(_broken_by(rng, whole))
        before = errors
        for number, wanted in zip(numbers, intact, strict=True):
            try:
                with reader.readable_errors():
                    assert read_one(number).numpy() == wanted
            except schema.ShardError as error:
                errors += 1
                assert str(path) in str(error) and "\n" not in str(error)
        # Zeroing what is zero changes nothing; everything else must be noticed.
        assert errors > before or path.read_bytes() == whole
        path.write_bytes(whole)
    assert 80 < errors < 4 * 80


def test_a_shard_that_goes_while_it_is_read_is_named(shards, tmp_path):
    for name in tf.io.gfile.listdir(shards):
        tf.io.gfile.copy(f"{shards}/{name}", f"{tmp_path}/{name}")
    manifest = schema.load_manifest(str(tmp_path))
    records = reader.RecordReader(manifest, 0)
    (tmp_path / manifest.files[0].name).unlink()
    with pytest.raises(schema.ShardError, match=f"record 0 of .*{manifest.files[0].name}"), reader.readable_errors():
        records.read(tf.constant(0, tf.int64))


def test_other_errors_of_the_graph_are_not_taken_for_broken_records():
    with pytest.raises(tf.errors.InvalidArgumentError), reader.readable_errors():
        tf.debugging.assert_equal(1, 2)


# ---- Shards that do not fit


def _misfits() -> Iterator[Any]:
    yield pytest.param({"canvas": (96, 64)}, {}, "canvas.*64, 96.*96, 64.*data.train", id="canvas")
    yield pytest.param({}, {"sizes": (10, 6)}, r"model.grid.sizes.*12, 6.*10, 6", id="sizes")
    yield pytest.param({}, {"center_sigma": 0.3}, "model.grid.center_sigma.*0.2.*0.3", id="sigma")


@pytest.mark.parametrize(("data", "grid", "message"), _misfits())
def test_shards_of_another_geometry_are_refused(data, grid, message, shards):
    config = recipe(shards, **data)
    config.model.grid = dataclasses.replace(GRID, **grid)
    with pytest.raises(ConfigError, match=message):
        pipeline.build_dataset(config, "train", batch_size=2)


def test_another_number_of_categories_is_refused(shards):
    config = recipe(shards)
    config.model.num_categories = 80
    with pytest.raises(ConfigError, match="3 categories.*model.num_categories=80"):
        pipeline.build_dataset(config, "validation", batch_size=2)


def test_lists_from_the_command_line_fit_too(shards):
    config = recipe(shards)
    config.data.canvas, config.model.grid.sizes = list(CANVAS), list(GRID.sizes)  # type: ignore[assignment]
    config.model.grid.scale_ranges = [list(pair) for pair in GRID.scale_ranges]  # type: ignore[assignment]
    assert_same(
        read(pipeline.build_dataset(config.validate(), "train", batch_size=2), 1),
        read(pipeline.build_dataset(recipe(shards), "train", batch_size=2), 1),
    )


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.train is empty"):
        pipeline.build_dataset(recipe(""), "train", batch_size=2)
    with pytest.raises(schema.ShardError, match="does not exist"):
        pipeline.build_dataset(recipe(str(tmp_path / "nowhere")), "train", batch_size=2)
