"""Normalisations against slow, plain versions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from solo_dist.models.layers import ConvNorm, conv2d
from solo_dist.models.norm import EPSILON, GroupNorm, group_norm


def random(*shape, seed=0, mean=0.0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(mean, 1, shape), tf.float32)


def plain_group_norm(x, gamma, beta, groups):
    batch, height, width, channels = x.shape
    grouped = tf.reshape(tf.cast(x, tf.float64), [batch, height, width, groups, channels // groups])
    mean = tf.reduce_mean(grouped, [1, 2, 4], keepdims=True)
    variance = tf.reduce_mean((grouped - mean) ** 2, [1, 2, 4], keepdims=True)
    normal = tf.reshape((grouped - mean) / tf.sqrt(variance + EPSILON), x.shape)
    return tf.cast(normal, tf.float32) * gamma + beta


def value_and_gradients(function, x, gamma, beta, groups, weights):
    with tf.GradientTape() as tape:
        tape.watch([x, gamma, beta])
        y = function(x, gamma, beta, groups)
        loss = tf.reduce_sum(y * weights)
    return [y, *tape.gradient(loss, [x, gamma, beta])]


@pytest.mark.parametrize(("shape", "groups"), [((2, 5, 7, 24), 8), ((1, 3, 4, 6), 6), ((3, 4, 4, 10), 1)])
@pytest.mark.parametrize("compiled", [False, True])
def test_group_norm_and_its_gradient_equal_a_plain_version(shape, groups, compiled):
    # A mean far from zero: a variance from the mean of squares would be off here.
    arguments = random(*shape, mean=30.0), random(shape[-1], seed=1), random(shape[-1], seed=2)
    weights = random(*shape, seed=3)
    expected = value_and_gradients(plain_group_norm, *arguments, groups, weights)
    run = tf.function(lambda *a: value_and_gradients(group_norm, *a, groups, weights), jit_compile=compiled)
    for actual, reference in zip(run(*arguments), expected, strict=True):
        assert np.abs(actual - reference).max() <= 1e-4 * np.abs(reference).max()


def test_group_norm_keeps_float32_statistics_in_bfloat16():
    x = random(2, 16, 16, 8, mean=3.0)
    exact = group_norm(x, tf.ones([8]), tf.zeros([8]), 2)
    rounded = group_norm(tf.cast(x, tf.bfloat16), tf.ones([8]), tf.zeros([8]), 2)
    assert rounded.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(rounded, tf.float32), exact, atol=0.03)


def test_groups_fall_back_to_a_divisor_of_the_channels():
    layer = GroupNorm(32, name="norm")
    layer.build((None, 4, 4, 48))
    assert layer.groups == 24


def test_folded_statistics_equal_normalising_after_the_convolution():
    layer = ConvNorm(6, 3, strides=2, norm="frozen_batch", name="layer")
    layer.build((None, 8, 8, 4))
    generator = np.random.default_rng(0)
    for variable in layer.variables:
        variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    x, weights = random(2, 8, 8, 4), random(2, 4, 4, 6, seed=1)

    def plain(x):
        y = conv2d(x, layer.kernel.value, 2)
        normal = (y - layer.norm.moving_mean) / tf.sqrt(layer.norm.moving_variance + EPSILON)
        return tf.nn.relu(normal * layer.norm.gamma + layer.norm.beta)

    trained = [layer.kernel.value, layer.norm.gamma.value, layer.norm.beta.value]
    results = []
    for function in (layer, plain):
        with tf.GradientTape() as tape:
            y = function(x)
            loss = tf.reduce_sum(y * weights)
        results.append([y, *tape.gradient(loss, trained)])
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_batch_and_frozen_batch_share_names_and_differ_in_training():
    layers = {kind: ConvNorm(4, 1, norm=kind, activation=None, name="layer") for kind in ("batch", "frozen_batch")}
    for layer in layers.values():
        layer.build((None, 4, 4, 4))
    names = [sorted(variable.path for variable in layer.variables) for layer in layers.values()]
    assert names[0] == names[1]
    for variable in layers["frozen_batch"].variables:
        by_path = {v.path: v for v in layers["batch"].variables}
        by_path[variable.path].assign(variable)
    x = random(2, 4, 4, 4, mean=5.0)
    np.testing.assert_allclose(layers["batch"](x), layers["frozen_batch"](x), rtol=1e-5, atol=1e-5)
    trained = layers["batch"](x, training=True)
    np.testing.assert_allclose(tf.reduce_mean(trained, [0, 1, 2]), np.zeros(4), atol=1e-4)
    assert np.abs(layers["batch"].norm.moving_mean).max() > 0.1


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_strided_convolution_pads_as_torch_does(size):
    """Output pixel (0, 0) of a 3x3 kernel at stride 2 reads input rows -1..1, not 0..2."""
    x = random(1, *size, 1)
    kernel = tf.constant(np.arange(9).reshape(3, 3, 1, 1), tf.float32)
    y = conv2d(x, kernel, 2).numpy()[0, :, :, 0]
    padded = np.pad(x.numpy()[0, :, :, 0], 1)
    expected = [
        [(padded[r : r + 3, c : c + 3] * kernel.numpy()[:, :, 0, 0]).sum() for c in range(0, size[1], 2)]
        for r in range(0, size[0], 2)
    ]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_sync_batch_is_synchronised():
    assert isinstance(ConvNorm(4, 1, norm="sync_batch").norm, keras.layers.BatchNormalization)
    assert ConvNorm(4, 1, norm="sync_batch").norm.synchronized
