"""Convolutions with torch's symmetric padding, alone or followed by a normalisation and a ReLU.

They can be grouped (ResNeXt) or deformable.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from solo_dist.models.deformable import deformable_conv2d
from solo_dist.models.grouped import grouped_conv2d
from solo_dist.models.norm import EPSILON, FrozenBatchNorm, make_norm

_WIDE = 128
"""Channels from which on the kernel gradient is faster as matrix products on a CPU."""


def conv2d(x: tf.Tensor, kernel: tf.Tensor, strides: int = 1, padding: str = "torch") -> tf.Tensor:
    """Convolves with zeros around the image.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C / groups, F] with odd k, in the type of x; the channels of each group are convolved apart.
      strides: stride in both directions.
      padding: torch: (k - 1) / 2 zeros on every side; tensorflow: SAME, which at stride 2 pads only below and right
        if that suffices.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), F].
    """
    if kernel.shape[2] != x.shape[3] and _on_cpu():
        return grouped_conv2d(x, kernel, strides)
    x, strides, padding = _prepare(x, kernel.shape[0], strides, padding)
    if x.dtype == tf.float16 and _on_cpu():
        # A CPU has no fast float16 convolution; rounded afterwards, as on a GPU, whose sums are float32 too.
        wide = tf.nn.conv2d(tf.cast(x, tf.float32), tf.cast(kernel, tf.float32), strides, padding)
        return tf.cast(wide, x.dtype)
    if _has_slow_kernel_gradient(x, kernel, strides):
        return _conv3x3(x, kernel)
    return tf.nn.conv2d(x, kernel, strides, padding)


def _has_slow_kernel_gradient(x: tf.Tensor, kernel: tf.Tensor, strides: int) -> bool:
    plain = x.dtype == tf.float32 and strides == 1 and kernel.shape[0] == 3 and min(kernel.shape[2:]) >= _WIDE
    return plain and _on_cpu()


def _on_cpu() -> bool:
    return not tf.config.list_physical_devices("GPU")


@tf.custom_gradient
def _conv3x3(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    """A 3x3 convolution whose kernel gradient is three matrix products; a third less time than oneDNN's on a CPU."""

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        dx = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, strides=[1, 1, 1, 1], padding="SAME"
        )
        return dx, _kernel_gradient(x, dy)

    return tf.nn.conv2d(x, kernel, 1, "SAME"), gradient


def _kernel_gradient(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """Kernel gradient of a 3x3 convolution: x [B, H, W, C], output gradient [B, H, W, F] -> [3, 3, C, F].

    With a column and rows of zeros between, a neighbour is a constant number of pixels ahead in the flat image.
    """
    width, channels, filters = x.shape[2] + 1, x.shape[3], dy.shape[3]
    x = tf.reshape(tf.pad(x, [[0, 0], [1, 2], [1, 0], [0, 0]]), [-1, channels])
    pixels = tf.shape(x)[0] - 3 * width
    dy = tf.reshape(tf.pad(dy, [[0, 0], [0, 3], [0, 1], [0, 0]]), [-1, filters])[:pixels]
    columns = tf.concat([x[j : j + pixels + 2 * width] for j in range(3)], axis=1)
    rows = [tf.matmul(columns[i * width : i * width + pixels], dy, transpose_a=True) for i in range(3)]
    return tf.reshape(tf.stack(rows), [3, 3, channels, filters])


def depthwise_conv2d(x: tf.Tensor, kernel: tf.Tensor, strides: int = 1, padding: str = "torch") -> tf.Tensor:
    """As `conv2d`, every channel on its own: kernel [k, k, C, 1]."""
    x, strides, padding = _prepare(x, kernel.shape[0], strides, padding)
    return tf.nn.depthwise_conv2d(x, kernel, [1, strides, strides, 1], padding)


def _prepare(x: tf.Tensor, side: int, strides: int, padding: str) -> tuple[tf.Tensor, int, str]:
    """Image, strides and TensorFlow's padding of the same convolution in forms whose gradients are fast and sound.

    Not explicit padding: oneDNN does not take its gradients, which in bfloat16 are then 100 times slower. And no row or
    column may be left over at the end: oneDNN's gradients of a 1x1 convolution with strides write beyond their memory.
    """
    if side == 1:
        return (x if strides == 1 else x[:, ::strides, ::strides]), 1, "SAME"
    if padding == "tensorflow" or strides == 1:
        return x, strides, "SAME"
    border = (side - 1) // 2
    ends = [(-(-size // strides) - 1) * strides + side - size - border for size in x.shape[1:3]]
    return tf.pad(x, [[0, 0], [border, ends[0]], [border, ends[1]], [0, 0]]), strides, "VALID"


class Conv(keras.layers.Layer):
    """A convolution with bias, symmetric padding and no activation."""

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        strides: int = 1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = bias_initializer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables."""
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=self.kernel_initializer)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=self.bias_initializer)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), filters]."""
        return tf.nn.bias_add(conv2d(x, tf.convert_to_tensor(self.kernel), self.strides), self.bias)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Shape of what `call` returns."""
        return _output_shape(input_shape, self.strides, self.filters)


def _output_shape(input_shape: tuple[Any, ...], strides: int, filters: int) -> tuple[Any, ...]:
    batch, height, width, _ = input_shape
    return batch, -(-height // strides), -(-width // strides), filters


class ConvNorm(keras.layers.Layer):
    """Convolution without bias, normalisation and, by default, ReLU.

    Args:
      filters: output channels.
      kernel_size: odd side of the kernel.
      strides: stride in both directions.
      norm: a kind of `BackboneConfig.norm`.
      groups: groups if norm is "group".
      epsilon: added to the variance.
      activation: what follows the normalisation; None: nothing.
      depthwise: every channel on its own; filters is then the number of input channels.
      cardinality: groups of channels that are convolved apart.
      deformable: none, or v1 or v2 for a convolution whose taps read where the layer `offset` says (models/deformable).
      offset_initializer: of the kernel of that layer, whose bias starts at 0.
      padding: torch or tensorflow, see `conv2d`.
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
        epsilon: float = EPSILON,
        activation: Callable[[tf.Tensor], tf.Tensor] | None = tf.nn.relu,
        depthwise: bool = False,
        cardinality: int = 1,
        deformable: str = "none",
        offset_initializer: Any = "zeros",
        padding: str = "torch",
        zero_gamma: bool = False,
        kernel_initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.activation = activation
        self.depthwise = depthwise
        self.cardinality = cardinality
        self.padding = padding
        self.kernel_initializer = kernel_initializer or keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal"
        )
        self.norm = make_norm(norm, groups=groups, epsilon=epsilon, zero_gamma=zero_gamma)
        self.offset: Conv | None = None
        if deformable != "none":
            numbers = {"v1": 2, "v2": 3}[deformable] * kernel_size**2
            self.offset = Conv(numbers, kernel_size, offset_initializer, strides=strides, name="offset")

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Creates the variables."""
        last = (self.filters, 1) if self.depthwise else (input_shape[-1] // self.cardinality, self.filters)
        shape = (self.kernel_size, self.kernel_size, *last)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=self.kernel_initializer, autocast=False)
        if self.offset is not None:
            self.offset.build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), filters]."""
        if isinstance(self.norm, FrozenBatchNorm):
            scale, shift = self.norm.folded()
            # Scaled in float32, rounded once: as exact in bfloat16 as the unscaled kernel.
            y = self._convolve(x, self.kernel * (scale[:, None] if self.depthwise else scale))
            y = tf.nn.bias_add(y, tf.cast(shift, y.dtype))
        else:
            y = self.norm(self._convolve(x, self.kernel), training=training)
        return y if self.activation is None else self.activation(y)

    def _convolve(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        kernel = tf.cast(kernel, x.dtype)
        if self.offset is not None:
            return self._convolve_deformed(x, kernel, self.offset(x))
        convolve = depthwise_conv2d if self.depthwise else conv2d
        return convolve(x, kernel, self.strides, self.padding)

    def _convolve_deformed(self, x: tf.Tensor, kernel: tf.Tensor, placement: tf.Tensor) -> tf.Tensor:
        """Placement: 2k offsets for the k taps and, in version 2, k logits of their factors after them (quirk 27)."""
        taps = self.kernel_size**2
        placement = tf.cast(placement, tf.float32)
        offsets, logits = placement[..., : 2 * taps], placement[..., 2 * taps :]
        factors = tf.sigmoid(logits) if logits.shape[-1] else None
        return deformable_conv2d(x, offsets, factors, kernel, self.strides, self.cardinality)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Shape of what `call` returns."""
        return _output_shape(input_shape, self.strides, self.filters)
