"""The panel of a run: which image it shows, and that this image is read once."""

import numpy as np
import tensorflow as tf

from solo_dist.data.input.pipeline import build_dataset
from solo_dist.data.schema import load_manifest
from solo_dist.training import panels
from tests.distributed import tiny


def test_a_panel_shows_the_first_image_of_the_run_and_reads_it_once(shards, monkeypatch):
    config = tiny.get_config()
    config.data.train, config.data.service = shards[0], "grpc://nobody:1"
    opened, seen = [], []

    def open_dataset(*arguments, **options):
        opened.append(arguments)
        return build_dataset(*arguments, **options)

    def detect_nothing(images):
        seen.append(images.numpy())
        cells = images.shape[1] // 4
        nothing = {"scores": tf.zeros([1, 2]), "categories": tf.zeros([1, 2], tf.int32)}
        return nothing | {"mask_probabilities": tf.zeros([1, 2, cells, cells])}

    monkeypatch.setattr(panels, "build_dataset", open_dataset)
    panel = panels.TrainingPanel(config, load_manifest(shards[0]), detect_nothing)
    first, second = panel.draw(), panel.draw()
    np.testing.assert_array_equal(first, second)
    config.data.service = ""
    (expected,) = build_dataset(config, "train", batch_size=1).take(1)
    np.testing.assert_array_equal(seen, [expected["image"]] * 2)
    assert len(opened) == 1


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


def test_training_panel_leaves_out_the_padding_and_the_uncertain():
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
    drawn = panels.training_panel(batch, detections, [{"name": ""}], 0.5)
    factor = 512 // 96
    width = 96 * factor
    assert drawn.shape == (64 * factor, 3 * width + 16, 3)
    targets, predictions = drawn[:, width + 8 :][:, :width], drawn[:, 2 * width + 16 :]
    assert (targets[:, : 32 * factor] != 50).any(2).all() and (targets[:, 32 * factor :] == 50).all()
    assert (predictions[32 * factor :] == 50).all() and (predictions[0] != 50).any(1).all()
