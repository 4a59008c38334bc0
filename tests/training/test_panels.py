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
