"""Convolutions with torch's symmetric padding, alone or followed by a normalisation and a ReLU."""

from typing import Any

import keras
import tensorflow as tf

from solo_dist.models.norm import FrozenBatchNorm, make_norm


def conv2d(x: tf.Tensor, kernel: tf.Tensor, strides: int = 1) -> tf.Tensor:
    """Convolves with (k - 1) / 2 zeros on every side, as torch does.

    TensorFlow's SAME padding differs at stride 2, where it pads only below and to the right.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C, F] with odd k, in the type of x.
      strides: step in both directions.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), F].
    """
    border = (kernel.shape[0] - 1) // 2
    return tf.nn.conv2d(x, kernel, strides, [[0, 0], [border, border], [border, border], [0, 0]])


class Conv(keras.layers.Layer):
    """A convolution with bias, symmetric padding and no activation."""

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = bias_initializer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=self.kernel_initializer)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=self.bias_initializer)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, filters]."""
        return tf.nn.bias_add(conv2d(x, tf.convert_to_tensor(self.kernel)), self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of what `call` returns."""
        return (*input_shape[:-1], self.filters)


class ConvNorm(keras.layers.Layer):
    """Convolution without bias, normalisation and, unless told otherwise, ReLU.

    Args:
      filters: output channels.
      kernel_size: odd side of the kernel.
      strides: step in both directions.
      norm: a kind of `BackboneConfig.norm`.
      groups: groups where norm is "group".
      relu: whether a ReLU follows.
      zero_gamma: start the normalisation's scale at 0.
      kernel_initializer: default: normal with variance 2 / fan out (official ResNet).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        norm: str = "group",
        groups: int = 32,
        relu: bool = True,
        zero_gamma: bool = False,
        kernel_initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.relu = relu
        self.kernel_initializer = kernel_initializer or keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal"
        )
        self.norm = make_norm(norm, groups=groups, zero_gamma=zero_gamma)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=self.kernel_initializer, autocast=False)
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), filters]."""
        if isinstance(self.norm, FrozenBatchNorm):
            scale, shift = self.norm.folded()
            # Scaled in float32, rounded once: as exact in bfloat16 as the unscaled kernel.
            y = conv2d(x, tf.cast(self.kernel * scale, x.dtype), self.strides)
            y = tf.nn.bias_add(y, tf.cast(shift, y.dtype))
        else:
            y = conv2d(x, tf.cast(self.kernel, x.dtype), self.strides)
            y = self.norm(y, training=training)
        return tf.nn.relu(y) if self.relu else y

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of what `call` returns."""
        batch, height, width, _ = input_shape
        return batch, -(-height // self.strides), -(-width // self.strides), self.filters
