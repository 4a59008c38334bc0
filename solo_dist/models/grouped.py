"""Convolutions in groups: the channels of each group are convolved apart (ResNeXt, Xie et al. 2017)."""

import tensorflow as tf


def grouped_product(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """[n, groups * c] and [groups, c, f] -> [n, groups * f], in the type of both."""
    groups, depth, filters = weights.shape
    if groups == 1:
        return tf.matmul(values, weights[0])
    values = tf.transpose(tf.reshape(values, [-1, groups, depth]), [1, 0, 2])
    return tf.reshape(tf.transpose(tf.matmul(values, weights), [1, 0, 2]), [-1, groups * filters])


def grouped_product_gradient(values: tf.Tensor, dy: tf.Tensor, groups: int) -> tf.Tensor:
    """The gradient of `grouped_product` by its weights: values [n, groups * c], dy [n, groups * f]."""
    if groups == 1:
        return tf.matmul(values, dy, transpose_a=True)[None]
    by_group = (tf.reshape(part, [-1, groups, part.shape[1] // groups]) for part in (values, dy))
    values, dy = (tf.transpose(part, [1, 0, 2]) for part in by_group)
    return tf.matmul(values, dy, transpose_a=True)


def split_groups(kernel: tf.Tensor, groups: int) -> tf.Tensor:
    """A kernel [k, k, C / groups, F] as weights of its taps, row-major: [k * k, groups, C / groups, F / groups]."""
    side, _, depth, filters = kernel.shape
    return tf.transpose(tf.reshape(kernel, [side * side, depth, groups, filters // groups]), [0, 2, 1, 3])


def grouped_conv2d(x: tf.Tensor, kernel: tf.Tensor, strides: int = 1) -> tf.Tensor:
    """Convolves tap by tap, with zeros around the image. TensorFlow has no gradients of its own grouped form on a CPU.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C / groups, F] with odd k, in the type of x.
      strides: stride in both directions.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), F].
    """
    _, height, width, channels = x.shape
    side, _, depth, filters = kernel.shape
    rows, columns, border = -(-height // strides), -(-width // strides), side // 2
    padded = tf.pad(x, [[0, 0], [border, border], [border, border], [0, 0]])
    total = tf.zeros([], x.dtype)
    for tap, weights in enumerate(tf.unstack(split_groups(kernel, channels // depth))):
        top, left = divmod(tap, side)
        read = padded[:, top : top + (rows - 1) * strides + 1 : strides]
        read = read[:, :, left : left + (columns - 1) * strides + 1 : strides]
        total += grouped_product(tf.reshape(read, [-1, channels]), weights)
    return tf.reshape(total, [-1, rows, columns, filters])
