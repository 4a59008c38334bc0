"""Masks as bits: eight pixels of a row in a byte, the first pixel in the highest bit, as numpy.packbits stores them."""

import numpy as np
import tensorflow as tf

_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
_LOWEST_BITS_TO_HIGHEST_BYTE = 0x8040201008040201 - 2**64


def pack_bits(bits: tf.Tensor) -> tf.Tensor:
    """Bool [n,P] with P a static multiple of 8 -> uint8 [n,P/8]."""
    count, pixels = bits.shape
    return pack_lowest_bits(tf.bitcast(tf.reshape(tf.cast(bits, tf.uint8), [count, pixels // 8, 8]), tf.int64))


def pack_lowest_bits(words: tf.Tensor) -> tf.Tensor:
    """The lowest bit of each byte of int64 [...], the byte of the first pixel lowest -> uint8 [...].

    All other bits of `words` must be 0.
    """
    # The product moves the lowest bit of byte i to bit 7 - i of the highest byte.
    highest_byte = tf.bitwise.right_shift(words * _LOWEST_BITS_TO_HIGHEST_BYTE, 56)
    return tf.cast(tf.bitwise.bitwise_and(highest_byte, 255), tf.uint8)


def unpack_bits(packed: tf.Tensor, dtype: tf.DType = tf.bool, width: int | None = None) -> tf.Tensor:
    """Uint8 [..., n] -> [..., 8n] of 0 and 1 in `dtype`, or the first `width` of them if the last byte is not full."""
    bits = tf.gather(tf.constant(_BITS_OF_BYTE, dtype), tf.cast(packed, tf.int32))  # half the time of shifting
    bits = tf.reshape(bits, tf.concat([tf.shape(packed)[:-1], [8 * tf.shape(packed)[-1]]], axis=0))
    bits = tf.ensure_shape(bits, [*packed.shape[:-1], packed.shape[-1] and 8 * packed.shape[-1]])
    return bits if width in (None, bits.shape[-1]) else bits[..., :width]


def count_bits(packed: tf.Tensor) -> tf.Tensor:
    """Uint8 [..., n] with n static -> float32 [...], how many bits are set."""
    *shape, size = packed.shape
    padded = tf.pad(packed, [[0, 0]] * len(shape) + [[0, -size % 8]])
    # Words of 64 bits take an eighth of the time that bytes take.
    words = tf.bitcast(tf.reshape(padded, [*(side or -1 for side in shape), padded.shape[-1] // 8, 8]), tf.int64)
    return tf.reduce_sum(tf.cast(tf.raw_ops.PopulationCount(x=words), tf.float32), axis=-1)
