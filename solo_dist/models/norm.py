"""Normalisations with the official epsilon of 1e-5: GroupNorm, and BatchNorm on stored statistics.

Statistics and affine parameters stay in float32 in every precision.
"""

from typing import Any

import keras
import tensorflow as tf

EPSILON = 1e-5


class GroupNorm(keras.layers.Layer):
    """Group normalisation over the channels of an NHWC map (golden README, quirk 10).

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
        while channels % self.groups:
            self.groups -= 1
        initial = "zeros" if self.zero_gamma else "ones"
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer=initial, autocast=False)
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros", autocast=False)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> the same shape and type."""
        return group_norm(x, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta), self.groups)


def group_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, groups: int) -> tf.Tensor:
    """Normalises x [B, H, W, C] over height, width and the channels of each group; gamma and beta float32 [C]."""
    height, width, channels = x.shape[1:]
    grouped = tf.reshape(tf.cast(x, tf.float32), [-1, height * width, groups, channels // groups])
    mean, variance = tf.nn.moments(grouped, axes=[1, 3], keepdims=True)  # [B, 1, G, 1]
    scale = tf.math.rsqrt(variance + EPSILON) * tf.reshape(gamma, [groups, channels // groups])
    shift = tf.reshape(beta, [groups, channels // groups]) - mean * scale
    return tf.cast(tf.reshape(grouped * scale + shift, tf.shape(x)), x.dtype)


class FrozenBatchNorm(keras.layers.Layer):
    """BatchNorm that always uses its stored statistics; scale and shift train (golden README, quirk 17).

    It is never applied to activations: the convolution before it takes `folded()` into its kernel, which is the same
    function, keeps one activation less for the backward pass and costs no pass over memory.
    """

    def __init__(self, zero_gamma: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
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
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + EPSILON)
        return scale, self.beta - self.moving_mean * scale


def make_norm(kind: str, *, groups: int = 32, zero_gamma: bool = False) -> keras.layers.Layer:
    """A normalisation layer named `norm` of a kind of `BackboneConfig.norm`."""
    if kind == "group":
        return GroupNorm(groups, zero_gamma, name="norm")
    if kind == "frozen_batch":
        return FrozenBatchNorm(zero_gamma, name="norm")
    return keras.layers.BatchNormalization(
        momentum=0.9,
        epsilon=EPSILON,
        synchronized=kind == "sync_batch",
        gamma_initializer="zeros" if zero_gamma else "ones",
        name="norm",
    )
