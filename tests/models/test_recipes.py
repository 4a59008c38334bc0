"""Every recipe builds, takes one step, and its weights come back from a checkpoint."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from solo_dist import recipes
from solo_dist.config import Config
from solo_dist.run.checkpoint import CheckpointMetadata, load_checkpoint, save_checkpoint
from solo_dist.solo.family import target_spec
from solo_dist.solo.losses import count_positives, solo_loss
from solo_dist.solo.network import build_model
from solo_dist.solo.targets import mask_key
from solo_dist.weights.load import load_model_weights

HEAVY = (
    "solov2_r50_fpn_1x",
    "solov2_r50_fpn_3x",
    "solov2_r101_fpn_3x",
    "solov2_light_448_r34_fpn_3x",
    "solov2_light_448_r50_fpn_3x",
    "article_r50_480",
    "solo_r50_fpn_1x",
    "solo_r50_fpn_3x",
    "solo_r101_fpn_3x",
    "decoupled_solo_r50_fpn_1x",
    "decoupled_solo_r50_fpn_3x",
    "decoupled_solo_r101_fpn_3x",
    "decoupled_solo_light_r50_fpn_3x",
    "decoupled_solo_light_dcn_r50",
    "solov2_light_512_dcn_r50",
    "solov2_r101_dcn_fpn_3x",
    "solov2_x101_dcn_fpn_3x",
    "finetune_lite0_384",
    "finetune_r18",
    "finetune_r50",
)
FAST = (
    "shapes_tiny",
    "shapes_tiny_solo",
    "shapes_tiny_decoupled_solo",
    "shapes_tiny_decoupled_solo_light",
    "shapes_tiny_decoupled_dynamic_solo",
    "solov2_light_448_r18_fpn_3x",
    "finetune_lite0_256",
)
RECIPES = (*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in HEAVY))
CANVAS = (64, 96)


def recipe(name: str) -> Config:
    config = recipes.get(name).validate()
    config.model.num_categories = config.model.num_categories or 5
    config.model.backbone.weights = ""
    return config


def random_batch(config: Config) -> dict[str, tf.Tensor]:
    generator = np.random.default_rng(0)
    cells = config.model.grid.num_cells
    category_grid = np.where(generator.random((1, cells)) < 0.01, generator.integers(0, 5, (1, cells)), -1)
    spec = target_spec(config)
    pixels = 1 if spec.coverage else 8  # in a byte
    shapes = {mask_key(s): (1, 2, CANVAS[0] // s, -(-CANVAS[1] // s // pixels)) for s in spec.mask_strides}
    return {
        "image": tf.constant(generator.integers(0, 256, (1, *CANVAS, 3)), tf.uint8),
        "category_grid": tf.constant(category_grid, tf.int32),
        "positive_cell": tf.constant([[0, 3, cells - 1, -1]], tf.int32),
        "positive_instance": tf.constant([[0, 1, 1, 0]], tf.int32),
        **{key: tf.constant(generator.integers(0, 256, shape), tf.uint8) for key, shape in shapes.items()},
    }


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds_steps_saves_and_restores(name, tmp_path):
    config = recipe(name)
    assert config.name == name
    keras.utils.set_random_seed(0)
    model = build_model(config.model, CANVAS)
    batch = random_batch(config)

    def losses() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            outputs = model(batch["image"], training=True)
            loss = solo_loss(outputs, batch, count_positives(batch), config.loss, config.model)["total"]
        return loss, tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    before, gradients = losses()
    norm = tf.linalg.global_norm(gradients)
    assert np.isfinite(before) and 0 < norm < np.inf
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        variable.assign(variable - 1e-2 / norm * gradient)
    after = solo_loss(model(batch["image"]), batch, count_positives(batch), config.loss, config.model)["total"]
    assert after < before

    arrays = {f"model/{variable.path}": variable.numpy() for variable in model.variables}
    save_checkpoint(f"{tmp_path}/step_00000001", arrays, CheckpointMetadata(step=1))
    again = build_model(config.model, CANVAS)
    load_model_weights(again, f"{tmp_path}/step_00000001")
    restored = {f"model/{variable.path}": variable.numpy() for variable in again.variables}
    assert list(restored) == list(arrays)
    assert all(np.array_equal(restored[path], arrays[path]) for path in arrays)
    assert load_checkpoint(f"{tmp_path}/step_00000001").metadata.step == 1
