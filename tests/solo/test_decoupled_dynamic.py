"""Decoupled Dynamic SOLO against its formula: a mask is the product of the sigmoids of A groups (no official code)."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import GridConfig, LossConfig, ModelConfig
from solo_dist.solo.family import find_member
from solo_dist.solo.losses import count_positives, solo_loss

GRID = GridConfig(levels=("p3", "p4"), sizes=(3, 2), scale_ranges=((1, 50), (20, 500)))
CHANNELS, SIZE = 4, (8, 16)


def make_case(mask_features):
    """A model with three groups, and random outputs of it for two images."""
    model = ModelConfig(
        head="decoupled_dynamic_solo",
        num_categories=2,
        grid=GRID,
        kernel_channels=CHANNELS,
        kernel_groups=3,
        mask_features=mask_features,
    )
    generator = np.random.default_rng(0)
    names = ["mask_features"] if mask_features == "unified" else ["mask_features_p3", "mask_features_p4"]
    shapes = {"kernels": (2, 13, 3 * CHANNELS), "category_logits": (2, 13, 2)} | {
        name: (2, *SIZE, CHANNELS) for name in names
    }
    return model, {name: tf.constant(generator.normal(size=shape), tf.float32) for name, shape in shapes.items()}


def slow_mask(outputs, image, cell) -> np.ndarray:
    """[h,w], group by group."""
    level = "p3" if cell < 9 else "p4"
    features = outputs.get("mask_features", outputs.get(f"mask_features_{level}"))[image].numpy()
    mask = np.ones(SIZE)
    for group in np.split(outputs["kernels"][image, cell].numpy(), 3):
        mask *= 1 / (1 + np.exp(-(features @ group)))
    return mask


@pytest.mark.parametrize("mask_features", ["unified", "separate"])
def test_masks_are_products_over_the_groups(mask_features):
    model, outputs = make_case(mask_features)
    for mask_map in find_member(model).mask_maps(outputs, GRID):
        cells = np.arange(mask_map.num_cells)
        actual = mask_map.probabilities(tf.constant([cells, cells], tf.int32)).numpy().reshape(2, -1, *SIZE)
        for image, cell in np.ndindex(2, mask_map.num_cells):
            expected = slow_mask(outputs, image, mask_map.first_cell + cell)
            np.testing.assert_allclose(actual[image, cell], expected, atol=1e-5)


@pytest.mark.parametrize("mask_features", ["unified", "separate"])
def test_dice_loss_and_its_gradients_are_those_of_the_products(mask_features):
    model, outputs = make_case(mask_features)
    generator = np.random.default_rng(1)
    masks = generator.integers(0, 2, (2, 3, *SIZE)).astype(np.uint8)
    cells, instances = np.array([[0, 11, -1], [5, 12, 9]]), np.array([[0, 2, 0], [1, 1, 2]])
    batch = {
        "category_grid": tf.fill([2, 13], -1),
        "positive_cell": tf.constant(cells, tf.int32),
        "positive_instance": tf.constant(instances, tf.int32),
        "masks": tf.constant(np.packbits(masks, axis=-1)),
    }

    def of(outputs):
        return solo_loss(outputs, batch, count_positives(batch), LossConfig(mask_weight=1.0), model)["mask"]

    expected = 0.0
    for image, k in np.argwhere(cells >= 0):
        predicted, target = slow_mask(outputs, image, cells[image, k]), masks[image, instances[image, k]]
        sums = (predicted**2).sum() + target.sum() + 0.002
        expected += (1 - 2 * (predicted * target).sum() / sums) / 5
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = of(outputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    gradients = tape.gradient(loss, outputs)
    gradients.pop("category_logits")
    for name, gradient in gradients.items():
        direction = tf.constant(generator.normal(size=gradient.shape), tf.float32)
        ahead, back = (of(outputs | {name: outputs[name] + step * direction}) for step in (1e-2, -1e-2))
        assert tf.reduce_sum(gradient * direction).numpy() == pytest.approx((ahead - back).numpy() / 2e-2, rel=5e-3)
