"""Repeat-factor sampling, against a slow version and by counting what a training would read."""

import io
import math

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import Config, DataConfig, GridConfig
from solo_dist.data import schema
from solo_dist.data.input.repeats import repeat_factors
from solo_dist.data.input.sampler import Sampler

IMAGES, CATEGORIES, EPOCHS = 60, 4, 40


@pytest.fixture(scope="module")
def pairs() -> np.ndarray:
    """Category 0 is in nearly every image, 3 in two of them; image 5 has none."""
    rng = np.random.default_rng(0)
    found = [(image, c) for c, share in enumerate((0.9, 0.3, 0.1)) for image in range(IMAGES) if rng.random() < share]
    return np.array(sorted({(image, c) for image, c in [*found, (7, 3), (31, 3)] if image != 5}), np.int32)


def slow_factors(pairs, threshold):
    of_image = {image: {c for i, c in pairs.tolist() if i == image} for image in range(IMAGES)}
    share = {c: sum(c in found for found in of_image.values()) / IMAGES for c in range(CATEGORIES)}
    factor = {c: max(1.0, math.sqrt(threshold / share[c])) for c in share}
    return [max((factor[c] for c in of_image[image]), default=1.0) for image in range(IMAGES)]


@pytest.mark.parametrize("threshold", [0.01, 0.2, 1.0])
def test_factors(pairs, threshold):
    factors = repeat_factors(pairs, IMAGES, CATEGORIES, threshold)
    np.testing.assert_allclose(factors, slow_factors(pairs, threshold), rtol=1e-12)
    assert factors[5] == 1 and (threshold < 0.02) == (factors == 1).all()


def order_of(folder, pairs, **data) -> Sampler:
    buffer = io.BytesIO()
    np.save(buffer, pairs)
    (folder / schema.IMAGE_CATEGORIES).write_bytes(buffer.getvalue())
    side = schema.ShardFile(schema.IMAGE_CATEGORIES, 0, len(buffer.getvalue()), schema.crc32c(buffer.getvalue()))
    categories = [{"id": number, "name": str(number)} for number in range(CATEGORIES)]
    counts = {"num_images": IMAGES, "num_instances": 0, "rejected": {}, "statistics": {}}
    geometry = {"canvas": (64, 64), "grid": GridConfig(), "augmented_copies": 1, "keep_original": False}
    manifest = schema.Manifest(
        1, categories=categories, files=[], side_files=[side], folder=str(folder), **counts, **geometry
    )
    return Sampler(Config(seed=3, data=DataConfig(**data)), manifest, training=True)


def images_at(order, positions) -> np.ndarray:
    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(positions, np.int64)).map(order.record)
    return np.array(list(dataset.as_numpy_iterator()))


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_epoch_has_each_image_as_often_as_its_factor_says(tmp_path, pairs, shuffle):
    factors = np.array(slow_factors(pairs, 0.5))
    order = order_of(tmp_path, pairs, repeat_threshold=0.5, shuffle=shuffle)
    assert order.epoch_length == math.ceil(factors.sum())
    found = images_at(order, range(EPOCHS * order.epoch_length)).reshape(EPOCHS, order.epoch_length)
    counts = np.stack([np.bincount(epoch, minlength=IMAGES) for epoch in found])
    scaled = factors * order.epoch_length / factors.sum()
    assert counts.min() == 1
    assert (counts >= np.floor(scaled - 1e-9)).all() and (counts <= np.ceil(scaled + 1e-9)).all()
    np.testing.assert_allclose(counts.mean(0), scaled, atol=4 * 0.5 / math.sqrt(EPOCHS))
    assert (np.diff(found) < 0).any() == shuffle and len({tuple(epoch) for epoch in found.tolist()}) > 10


def test_the_order_is_a_function_of_the_position(tmp_path, pairs):
    order = order_of(tmp_path, pairs, repeat_threshold=0.5)
    positions = np.random.default_rng(1).permutation(1000)
    np.testing.assert_array_equal(images_at(order, positions), images_at(order, range(1000))[positions])


def test_without_a_threshold_nothing_is_repeated(tmp_path, pairs):
    order = order_of(tmp_path, pairs)
    assert sorted(images_at(order, range(IMAGES))) == list(range(IMAGES)) and order.epoch_length == IMAGES


def test_a_folder_that_does_not_know_its_categories_is_named(tmp_path, pairs):
    order_of(tmp_path, pairs)
    manifest = schema.Manifest(
        *(1, 1, 1, {}, (64, 64), GridConfig(), [], [], 1, False, {}), side_files=[], folder=str(tmp_path)
    )
    with pytest.raises(schema.ShardError, match="which data.repeat_threshold needs: it was made by an older version"):
        schema.load_image_categories(manifest)
