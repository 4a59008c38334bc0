"""Resizing against the official numbers and against TensorFlow's own kernel."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.models.resize import append_coordinates, resize_bilinear, upsample_nearest_2x


def nhwc(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("key", ["to_40x40", "to_12x12", "to_7x30", "to_26x42", "to_5x5"])
def test_bilinear_is_the_official_one(golden, key):
    vector = golden("resize_pointsnms")
    expected = nhwc(vector[key])
    actual = resize_bilinear(tf.constant(nhwc(vector["x"])), expected.shape[1:3])
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize(("key", "size"), [("x2_half", (6, 10)), ("x2_up2", (24, 40))])
def test_halving_and_doubling_are_the_official_ones(golden, key, size):
    vector = golden("resize_pointsnms")
    actual = resize_bilinear(tf.constant(nhwc(vector["x2"])), size)
    np.testing.assert_allclose(actual, nhwc(vector[key]), atol=1e-6)


def test_nearest_doubling_is_the_official_one(golden):
    vector = golden("resize_pointsnms")
    np.testing.assert_array_equal(upsample_nearest_2x(tf.constant(nhwc(vector["x2"]))), nhwc(vector["x2_nearest2"]))


@pytest.mark.parametrize(("source", "size"), [((9, 17), (40, 36)), ((25, 42), (12, 12)), ((8, 5), (16, 10))])
def test_gradient_equals_that_of_tensorflows_kernel(source, size):
    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(size=(2, *source, 3)), tf.float32)
    weights = tf.constant(generator.normal(size=(2, *size, 3)), tf.float32)
    gradients = []
    for resize in (resize_bilinear, lambda x, size: tf.image.resize(x, size)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(resize(x, size) * weights)
        gradients.append(tape.gradient(total, x))
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-5)


def test_bfloat16_gradient_compiles():
    """TensorFlow's own kernel fails here: its gradient comes back in float32."""

    @tf.function(jit_compile=True)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(tf.nn.relu(resize_bilinear(tf.nn.relu(x), (7, 9))))
        return tape.gradient(total, x)

    assert gradient(tf.ones([1, 4, 4, 2], tf.bfloat16)).dtype == tf.bfloat16


def test_coordinates_are_x_then_y_and_reach_both_ends():
    y = append_coordinates(tf.zeros([2, 3, 5, 1])).numpy()
    assert y.shape == (2, 3, 5, 3)
    np.testing.assert_allclose(y[1, 2, :, 1], [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(y[1, :, 4, 2], [-1, 0, 1])
