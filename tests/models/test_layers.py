"""Convolutions: torch's padding in a form that every library computes fast, and float16 on a CPU."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.models.layers import conv2d, depthwise_conv2d


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("side", [1, 3, 7])
def test_padding_is_symmetric(size, strides, side):
    random = np.random.default_rng(0)
    x = random.normal(size=[1, size, size, 2]).astype(np.float32)
    kernel = random.normal(size=[side, side, 2, 1]).astype(np.float32)
    border = side // 2
    padded = np.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))[:, ::strides, ::strides]
    np.testing.assert_allclose(conv2d(x, kernel, strides)[..., 0], np.einsum("bhwcij,ijco->bhw", windows, kernel), 1e-4)
    each = np.einsum("bhwcij,ijco->bhwc", windows, kernel)
    np.testing.assert_allclose(depthwise_conv2d(x, kernel, strides), each, 1e-4, 1e-5)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("side", [1, 3, 7])
@pytest.mark.parametrize("strides", [1, 2])
def test_forms_that_onednn_cannot_differentiate_are_avoided(size, side, strides):
    """Explicit padding has no fast gradient; pixels left over at the end have had gradients that corrupt memory."""
    kernel = tf.ones([side, side, 2, 2])
    picture = tf.TensorSpec([1, size, size, 2])
    graph = tf.function(lambda x: conv2d(x, kernel, strides)).get_concrete_function(picture).graph
    (op,) = [op for op in graph.get_operations() if op.type == "Conv2D"]
    step = op.get_attr("strides")[1]
    assert op.get_attr("padding") in (b"SAME", b"VALID")
    if op.get_attr("padding") == b"VALID":
        assert (op.inputs[0].shape[1] - side) % step == 0
    else:
        assert step == 1


def test_float16_is_rounded_once():
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=[1, 8, 8, 64]), tf.float16)
    kernel = tf.constant(random.normal(size=[3, 3, 64, 2]), tf.float16)
    y = conv2d(x, kernel)
    exact = conv2d(tf.cast(x, tf.float32), tf.cast(kernel, tf.float32))
    assert y.dtype == tf.float16
    np.testing.assert_allclose(tf.cast(y, tf.float32), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 5, 8), (2, 6, 3)])
def test_gradients_of_wide_convolutions(batch, height, width):
    """Written out as matrix products; TensorFlow's own are the reference."""
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=[batch, height, width, 128]), tf.float32)
    kernel = tf.constant(random.normal(size=[3, 3, 128, 136]), tf.float32)
    upstream = tf.constant(random.normal(size=[batch, height, width, 136]), tf.float32)

    def gradients(convolve):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = convolve(x, kernel, 1, "SAME") if convolve is tf.nn.conv2d else convolve(x, kernel)
        return tape.gradient(y, [x, kernel], upstream)

    for mine, expected in zip(gradients(conv2d), gradients(tf.nn.conv2d), strict=True):
        assert tf.norm(mine - expected) <= 1e-5 * tf.norm(expected)
