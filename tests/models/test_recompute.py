"""Recomputation changes no number, and what is kept is less."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from solo_dist import recipes
from solo_dist.models.recompute import Recomputation
from solo_dist.solo.network import build_model
from tests.distributed import tiny

TINY = tiny.model(num_categories=4)


def loss_and_gradients(model, images):
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = tf.add_n([tf.reduce_mean(tf.square(value)) for value in outputs.values()])
    return loss, tape.gradient(loss, [variable.value for variable in model.trainable_variables])


def build(recompute, norm="group"):
    keras.utils.set_random_seed(1)
    config = dataclasses.replace(TINY, backbone=dataclasses.replace(TINY.backbone, norm=norm))
    return build_model(config, (64, 64), recompute)


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)


def check_gradients(saving, plain, images):
    expected_loss, expected = tf.function(loss_and_gradients)(plain, images)
    loss, actual = tf.function(loss_and_gradients)(saving, images)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    scale = tf.linalg.global_norm(expected)
    assert scale > 0
    assert tf.linalg.global_norm([a - b for a, b in zip(actual, expected, strict=True)]) <= 1e-5 * scale


@pytest.mark.parametrize(
    ("recompute", "norm"), [("heads", "group"), pytest.param("all", "batch", marks=pytest.mark.slow)]
)
def test_gradients_and_moving_statistics_are_unchanged(recompute, norm):
    plain, saving = build("none", norm), build(recompute, norm)
    check_gradients(saving, plain, IMAGES)
    for mine, other in zip(saving.non_trainable_variables, plain.non_trainable_variables, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6, err_msg=mine.path)


@pytest.mark.slow
def test_gradients_of_the_official_network_are_unchanged():
    config, canvas = recipes.get("solov2_r50_fpn_3x").model, (512, 512)
    config.num_categories = 80
    images = np.random.default_rng(0).integers(0, 256, (1, *canvas, 3)).astype(np.uint8)
    models = []
    for recompute in ("all", "none"):
        keras.utils.set_random_seed(1)
        models.append(build_model(config, canvas, recompute))
    check_gradients(*models, images)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_function_runs_again_in_the_backward_pass(compiled):
    """Counted in the compiled program: merging the two computations would give the memory back."""
    layer = keras.layers.Dense(4, activation="tanh")
    layer.build((2, 4))

    @tf.function(jit_compile=compiled)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(Recomputation()(layer, [layer], x)))
        return loss, tape.gradient(loss, x)

    x = tf.ones([2, 4])
    if compiled:
        program = gradient.experimental_get_compiler_ir(x)(stage="optimized_hlo")
        assert program.count(" tanh(") == 2
    else:
        operations = [op.type for op in gradient.get_concrete_function(x).graph.get_operations()]
        assert operations.count("Tanh") == 2
