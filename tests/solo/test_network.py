"""The whole network: official sizes, frozen parts, precisions, compilation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import BackboneConfig, GridConfig, ModelConfig
from solo_dist.errors import ConfigError
from solo_dist.solo.network import build_model

TINY = ModelConfig(
    num_categories=4,
    backbone=BackboneConfig(name="resnet_tiny", width=16, norm="group", frozen_stages=-1),
    grid=GridConfig(levels=("p3", "p4"), sizes=(8, 4), scale_ranges=((1, 32), (24, 2048))),
    fpn_channels=32,
    head_channels=32,
    head_convs=1,
    kernel_channels=8,
    mask_channels=32,
    norm_groups=8,
)
LIGHT = {"head_channels": 256, "head_convs": 2, "kernel_channels": 128}


def count(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.mark.parametrize(
    ("changes", "total", "trainable", "parts"),
    [
        ({}, 46_592_912, 46_367_568, {"fpn": 3_344_384, "mask_head": 1_659_392, "head": 18_081_104}),
        (LIGHT, 31_340_560, 31_115_216, {"fpn": 3_344_384, "mask_head": 1_642_752, "head": 2_845_392}),
    ],
)
def test_parameters_equal_the_official_models(changes, total, trainable, parts):
    model = build_model(ModelConfig(num_categories=80, **changes), (64, 64))
    learned = [variable for variable in model.variables if "moving_" not in variable.path]
    assert count(learned) == total
    assert count(model.variables) - count(learned) == 53_120
    assert count(model.trainable_variables) == trainable
    for name, expected in parts.items():
        assert count(dict(fpn=model.fpn, **model.heads)[name].variables) == expected
    assert len({variable.path for variable in model.variables}) == len(model.variables)


def pictures(batch=2, canvas=(64, 96)) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).integers(0, 256, (batch, *canvas, 3)), tf.uint8)


def objective(outputs) -> tf.Tensor:
    return tf.add_n([tf.reduce_mean(tf.square(tf.cast(value, tf.float32))) for value in outputs.values()])


def gradients_of(model, images):
    with tf.GradientTape() as tape:
        loss = objective(model(images, training=True))
    return loss, tape.gradient(loss, model.trainable_variables)


def test_frozen_stages_get_no_gradient_and_the_others_do():
    config = ModelConfig(num_categories=2, backbone=BackboneConfig(name="resnet18"), **LIGHT)
    model = build_model(config, (64, 64))
    frozen = [v.path for v in model.backbone.variables if "/stem/" in v.path or "/stage1/" in v.path]
    assert not set(frozen) & {v.path for v in model.trainable_variables}
    with tf.GradientTape() as tape:
        loss = objective(model(pictures(1, (64, 64)), training=True))
    gradients = tape.gradient(loss, [variable.value for variable in model.backbone.variables])
    trained = {v.path for v, g in zip(model.backbone.variables, gradients, strict=True) if g is not None}
    assert trained == {variable.path for variable in model.backbone.trainable_variables}
    assert any("stage2/block0/conv1/norm/gamma" in path for path in trained)
    assert not any("moving_" in path for path in trained)


# Each takes the compiler many seconds; compilation fails first for bfloat16.


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_precisions_compile_and_agree(policy):
    keras.utils.set_random_seed(3)
    reference = build_model(TINY, (64, 96))
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build_model(TINY, (64, 96))
    finally:
        keras.config.set_dtype_policy(previous)
    model.set_weights(reference.get_weights())
    images = pictures()
    outputs = model(images)
    assert outputs["category_logits"].dtype == outputs["kernels"].dtype == tf.float32
    assert all(variable.dtype == "float32" for variable in model.variables)
    expected_loss, expected = gradients_of(reference, images)
    loss, actual = tf.function(lambda images: gradients_of(model, images), jit_compile=True)(images)
    tolerance = {"float32": 1e-4, "mixed_bfloat16": 0.1, "mixed_float16": 0.02}[policy]
    np.testing.assert_allclose(loss, expected_loss, rtol=tolerance)
    error = tf.linalg.global_norm([a - b for a, b in zip(actual, expected, strict=True)])
    assert error <= tolerance * tf.linalg.global_norm(expected)


def test_missing_number_of_categories_is_named():
    with pytest.raises(ConfigError, match="model.num_categories"):
        build_model(ModelConfig(), (64, 64))


def test_unknown_backbone_is_named():
    with pytest.raises(ConfigError, match="model.backbone.name='vgg'"):
        build_model(ModelConfig(num_categories=1, backbone=BackboneConfig(name="vgg")), (64, 64))


def test_unknown_head_is_named():
    with pytest.raises(ConfigError, match="model.head='mask_rcnn' is not one of solov2"):
        build_model(ModelConfig(num_categories=1, head="mask_rcnn"), (64, 64))
