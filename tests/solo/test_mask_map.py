"""Masks of chosen cells against plain loops."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.solo.mask_map import MaskMap


def random_map(first_cell, stride, channels):
    """5 cells, features of 4x6 pixels, two images, as many factors as there are numbers of channels."""
    rng = np.random.default_rng(1)
    features, kernels = (
        tuple(tf.constant(rng.normal(size=[2, *shape, e]), tf.float32) for e in channels) for shape in ([4, 6], [5])
    )
    return MaskMap(first_cell, stride, features, kernels)


def test_a_map_knows_its_own_cells():
    mask_map = random_map(first_cell=8, stride=4, channels=[3])
    assert mask_map.own(tf.constant([[7, 8, 12], [13, -1, 9]])).numpy().tolist() == [[-1, 0, 4], [-1, -1, 1]]


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("channels", [[6], [3, 5]])
def test_masks_equal_a_loop_over_cells(channels, stride):
    mask_map = random_map(0, stride, channels)
    cells = np.array([[4, 0, 2, 2], [1, 3, -1, -1]], np.int32)
    actual = mask_map.probabilities(tf.constant(cells)).numpy()
    height, width = mask_map.mask_size
    assert (height, width) == (stride, 6 * stride // 4) and actual.shape == (2, 4, height * width)
    assert np.isfinite(actual).all()
    for image in range(2):
        for index, cell in enumerate(cells[image]):
            if cell < 0:
                continue
            mask = 1.0
            for features, kernels in zip(mask_map.features, mask_map.kernels, strict=True):
                factor = tf.sigmoid(tf.linalg.matvec(features[image], kernels[image, cell]))
                mask *= tf.image.resize(factor[None, ..., None], [height, width])[0, ..., 0].numpy()
            np.testing.assert_allclose(actual[image, index].reshape(height, width), mask, atol=1e-5)


def test_the_maps_of_one_image():
    mask_map = random_map(3, 8, [6, 2])
    one = mask_map.of_image(tf.constant(1))
    assert one.first_cell == 3 and one.stride == 8
    for own, whole in zip(one.features + one.kernels, mask_map.features + mask_map.kernels, strict=True):
        np.testing.assert_array_equal(own, whole[1:])
