"""Pasting masks into the original image against two plain resizes."""

import numpy as np
import tensorflow as tf

from solo_dist.masks import paste


def slow_soft_masks(probabilities, image_size, original_size):
    """The official two resizes, one after the other, by another implementation of bilinear interpolation."""
    maps = tf.constant(probabilities.transpose(1, 2, 0)[None])
    height, width = maps.shape[1:3]
    large = tf.image.resize(maps, [4 * height, 4 * width])[:, : image_size[0], : image_size[1]]
    return tf.image.resize(large, original_size).numpy()[0].transpose(2, 0, 1)


def test_pasted_masks_equal_the_two_resizes():
    rng = np.random.default_rng(0)
    blocks = rng.uniform(size=[6, 5, 7]).astype(np.float32)
    probabilities = tf.image.resize(blocks[..., None], [16, 24]).numpy()[..., 0]
    probabilities[0] = 0.1  # nothing above the threshold
    probabilities[1, :, :5] = 0  # not in the corner
    for image_size, original in (((64, 96), (64, 96)), ((50, 96), (201, 333)), ((64, 61), (17, 20)), ((3, 3), (9, 5))):
        soft = slow_soft_masks(probabilities, image_size, original)
        found = paste.paste_masks(probabilities, image_size, original, 0.5)
        sure = np.abs(soft - 0.5) > 1e-4
        assert np.array_equal(found[sure], (soft > 0.5)[sure])
        assert sure.mean() > 0.98
    assert not found[0].any()


def test_pasting_in_the_graph_gives_the_same_masks():
    blocks = np.random.default_rng(1).uniform(size=[3, 5, 7]).astype(np.float32)
    probabilities = tf.image.resize(blocks[..., None], [16, 24])[..., 0]
    in_graph = tf.function(paste.paste_masks_in_graph)
    for image_size, original in (((64, 96), (64, 96)), ((50, 96), (201, 333)), ((64, 61), (17, 20))):
        masks = in_graph(probabilities, tf.constant(image_size), tf.constant(original), 0.5).numpy()
        wanted = paste.paste_masks(probabilities.numpy(), image_size, original, 0.5)
        sure = np.abs(slow_soft_masks(probabilities.numpy(), image_size, original) - 0.5) > 1e-5
        assert masks.shape == wanted.shape and np.array_equal(masks[sure], wanted[sure])
