"""Normalisations with the official epsilon of 1e-5: GroupNorm, and BatchNorm on stored statistics.

Statistics and affine parameters stay in float32 in every precision.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

EPSILON = 1e-5


class GroupNorm(keras.layers.Layer):
    """Group normalisation over the channels of an NHWC map (docs/numerics.md, quirk 10).

    Args:
      groups: number of groups; falls back to the largest divisor of the channels that is not above it.
      zero_gamma: start the scale at 0, so that a residual branch starts as the identity.
    """

    def __init__(self, groups: int = 32, zero_gamma: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.groups = groups
        self.zero_gamma = zero_gamma

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        channels = input_shape[-1]
        assert channels is not None
        while channels % self.groups:
            self.groups -= 1
        initial = "zeros" if self.zero_gamma else "ones"
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer=initial, autocast=False)
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros", autocast=False)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> the same shape and type."""
        return group_norm(x, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta), self.groups)


def group_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, groups: int) -> tf.Tensor:
    """Normalises x [B, H, W, C] over height, width and the channels of each group; gamma and beta float32 [C].

    Sums go over pixels first, channel by channel, and over the channels of a group afterwards, when there is little
    left to add; the gradient is written out. On a CPU that takes half the time of moments over a reshaped tensor, and
    the backward pass keeps x alone.
    """
    normalise = tf.custom_gradient(lambda x, gamma, beta: _group_norm_with_gradient(x, gamma, beta, groups))
    return normalise(x, gamma, beta)


def _group_norm_with_gradient(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, groups: int
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]]:
    _, height, width, channels = x.shape
    per_group = height * width * (channels // groups)

    def pixels(t: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.reshape(t, [-1, height * width, channels]), tf.float32)

    def mean_of_group(sums: tf.Tensor) -> tf.Tensor:
        """Sums over pixels [B, C] -> mean of each channel's group, [B, C]."""
        total = tf.reduce_sum(tf.reshape(sums, [-1, groups, channels // groups]), axis=2) / per_group
        # What tf.repeat would give, in two operations instead of thirty.
        return tf.reshape(tf.tile(total[:, :, None], [1, 1, channels // groups]), [-1, channels])

    mean = mean_of_group(tf.reduce_sum(pixels(x), axis=1))
    centred = pixels(x) - mean[:, None]
    inverse = tf.math.rsqrt(mean_of_group(tf.reduce_sum(tf.square(centred), axis=1)) + EPSILON)
    y = centred * (inverse * gamma)[:, None] + beta

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        dy_pixels = pixels(dy)
        dy_sum = tf.reduce_sum(dy_pixels, axis=1)
        dy_centred_sum = tf.reduce_sum(dy_pixels * pixels(x), axis=1) - mean * dy_sum
        # dx = inverse * (gamma dy - mean(gamma dy) - centred * inverse^2 * mean(gamma dy centred)), means over groups
        slope = mean_of_group(gamma * dy_centred_sum) * inverse**3
        offset = mean * slope - mean_of_group(gamma * dy_sum) * inverse
        dx = dy_pixels * (inverse * gamma)[:, None] - pixels(x) * slope[:, None] + offset[:, None]
        dx = tf.cast(tf.reshape(dx, tf.shape(x)), x.dtype)
        return dx, tf.reduce_sum(dy_centred_sum * inverse, axis=0), tf.reduce_sum(dy_sum, axis=0)

    return tf.cast(tf.reshape(y, tf.shape(x)), x.dtype), gradient


class FrozenBatchNorm(keras.layers.Layer):
    """BatchNorm that always uses its stored statistics; scale and shift train (docs/numerics.md, quirk 17).

    It is never applied to activations: the convolution before it takes `folded()` into its kernel, which is the same
    function, keeps one activation less for the backward pass and costs no pass over memory.
    """

    def __init__(self, epsilon: float = EPSILON, zero_gamma: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.zero_gamma = zero_gamma

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        shape = (input_shape[-1],)
        initial = "zeros" if self.zero_gamma else "ones"
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer=initial, autocast=False)
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros", autocast=False)
        # The names of keras.layers.BatchNormalization, so that the two can exchange checkpoints.
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=shape, initializer="zeros", trainable=False, autocast=False
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=shape, initializer="ones", trainable=False, autocast=False
        )

    def folded(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Scale and shift, float32 [C] each, that together are this normalisation."""
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        return scale, self.beta - self.moving_mean * scale


def make_norm(kind: str, *, groups: int = 32, epsilon: float = EPSILON, zero_gamma: bool = False) -> keras.layers.Layer:
    """A normalisation layer named `norm` of a kind of `BackboneConfig.norm`; GroupNorm keeps its own epsilon."""
    if kind == "group":
        return GroupNorm(groups, zero_gamma, name="norm")
    if kind == "frozen_batch":
        return FrozenBatchNorm(epsilon, zero_gamma, name="norm")
    return keras.layers.BatchNormalization(
        momentum=0.9,
        epsilon=epsilon,
        synchronized=kind == "sync_batch",
        gamma_initializer="zeros" if zero_gamma else "ones",
        name="norm",
    )
