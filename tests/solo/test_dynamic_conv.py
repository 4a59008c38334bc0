"""The dynamic convolution against a plain loop."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import GridConfig
from solo_dist.solo.dynamic_conv import mask_logits

GRID = GridConfig(levels=("p2", "p3"), sizes=(3, 2), scale_ranges=((1, 9), (5, 99)))


@pytest.mark.parametrize("maps", [1, 2])
def test_equals_a_loop_over_cells(maps):
    generator = np.random.default_rng(1)
    features = generator.normal(size=(2, 4, 5, 6 * maps)).astype(np.float32)
    kernels = generator.normal(size=(2, 13, 6)).astype(np.float32)
    cells = np.array([[0, 8, 9, 8], [12, 3, -1, -1]], np.int32)
    actual = mask_logits(tf.constant(features), tf.constant(kernels), tf.constant(cells), GRID).numpy()
    assert actual.shape == (2, 4, 20)
    for image in range(2):
        for index, cell in enumerate(cells[image]):
            if cell < 0:
                continue
            level = 0 if maps == 1 or cell < 9 else 1
            own = features[image].reshape(20, maps, 6)[:, level]
            np.testing.assert_allclose(actual[image, index], own @ kernels[image, cell], atol=1e-5)
    assert np.isfinite(actual).all()
