"""Panels: which images they show, that these are read once, and what is drawn."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.data.input.pipeline import build_dataset
from solo_dist.data.schema import load_manifest
from solo_dist.training import panels
from tests.distributed import tiny

CATEGORIES = [{"name": name} for name in ("disc", "square", "triangle")]


class Detector:
    """Finds nothing; remembers what it was shown."""

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append(images.numpy())
        count, cells = images.shape[0], images.shape[1] // 4
        nothing = {"scores": tf.zeros([count, 2]), "categories": tf.zeros([count, 2], tf.int32)}
        return nothing | {"mask_probabilities": tf.zeros([count, 2, cells, cells])}


@pytest.fixture
def config(shards):
    config = tiny.get_config()
    config.data.train, config.data.validation = shards
    return config


def test_a_panel_shows_the_first_image_of_the_run_and_reads_it_once(config, monkeypatch):
    config.data.service = "grpc://nobody:1"
    opened, detector = [], Detector()

    def open_dataset(*arguments, **options):
        opened.append(arguments)
        return build_dataset(*arguments, **options)

    monkeypatch.setattr(panels, "build_dataset", open_dataset)
    of_run = panels.Panels(config, "train", CATEGORIES, detector)
    (first,), (second,) = of_run.draw(), of_run.draw()
    np.testing.assert_array_equal(first, second)
    config.data.service = ""
    (expected,) = build_dataset(config, "train", batch_size=1).take(1)
    np.testing.assert_array_equal(detector.seen, [expected["image"]] * 2)
    assert len(opened) == 1


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_panels_of_validation_show_its_first_images_in_batches_of_any_size(config, batch_size):
    detector = Detector()
    drawn = panels.Panels(config, "validation", CATEGORIES, detector, 4, batch_size).draw()
    expected = list(build_dataset(config, "validation", batch_size=1).take(4))
    assert len(drawn) == len(expected) == 4
    for image, batch in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(image, panels.panel(batch, Detector()(batch["image"]), 0, CATEGORIES, 0.5))
    assert {images.shape[0] for images in detector.seen} == {batch_size}


def test_a_split_with_fewer_images_than_panels_shows_each_once(config):
    images = load_manifest(config.data.validation).num_images
    assert len(panels.Panels(config, "validation", CATEGORIES, Detector(), images + 5, 3).draw()) == images


def test_panel_shows_image_targets_and_predictions():
    image = np.full([128, 256, 3], 50, np.uint8)
    target, predicted = np.zeros([1, 32, 64], bool), np.zeros([2, 32, 64], bool)
    target[0, :, :32] = True
    predicted[0, :16] = True
    drawn = panels.side_by_side(image, target, predicted, ["", ""])
    width = (drawn.shape[1] - 16) // 3
    assert width == 512 and drawn.shape[0] == 256
    views = [drawn[:, i * (width + 8) :][:, :width] for i in range(3)]
    assert (views[0] == 50).all()
    assert (views[1][:, :256] != 50).any(axis=2).all() and (views[1][:, 256:] == 50).all()
    assert (views[2][:128] != 50).any(axis=2).all() and (views[2][128:] == 50).all()


def test_a_panel_leaves_out_the_padding_and_the_uncertain():
    batch = {
        "image": np.full([2, 64, 128, 3], 50, np.uint8),
        "image_size": np.array([[64, 96], [64, 128]]),
        "masks": np.zeros([2, 3, 16, 4], np.uint8),
    }
    batch["masks"][0, 1, :, 0] = 255  # the first 8 columns of a quarter: 32 of the image
    probabilities = np.zeros([2, 4, 16, 32], np.float32)
    probabilities[0, 0, :8] = 0.9
    probabilities[0, 1, 8:] = 0.9
    detections = {
        "scores": np.array([[0.8, 0.2, 0, 0], [0.9, 0.9, 0.9, 0.9]]),
        "categories": np.zeros([2, 4], int),
        "mask_probabilities": probabilities,
    }
    drawn = panels.panel(batch, detections, 0, [{"name": ""}], 0.5)
    factor = 512 // 96
    width = 96 * factor
    assert drawn.shape == (64 * factor, 3 * width + 16, 3)
    targets, predictions = drawn[:, width + 8 :][:, :width], drawn[:, 2 * width + 16 :]
    assert (targets[:, : 32 * factor] != 50).any(2).all() and (targets[:, 32 * factor :] == 50).all()
    assert (predictions[32 * factor :] == 50).all() and (predictions[0] != 50).any(1).all()
