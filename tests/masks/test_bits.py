"""Masks as bits, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.masks import bits


def test_bits_are_packed_as_numpy_does():
    mask = np.random.default_rng(0).integers(0, 2, [3, 4000]).astype(bool)
    assert np.array_equal(bits.pack_bits(tf.constant(mask)), np.packbits(mask, axis=1))


@pytest.mark.parametrize("dtype", [tf.bool, tf.float32])
def test_bits_are_unpacked_as_numpy_does(dtype):
    packed = np.random.default_rng(0).integers(0, 256, [3, 5, 7]).astype(np.uint8)
    unpacked = np.unpackbits(packed, axis=-1).astype(dtype.as_numpy_dtype)
    found = bits.unpack_bits(tf.constant(packed), dtype)
    assert found.dtype == dtype and np.array_equal(found, unpacked)
    assert np.array_equal(bits.unpack_bits(tf.constant(packed), dtype, width=51), unpacked[..., :51])
    in_graph = tf.function(bits.unpack_bits, input_signature=[tf.TensorSpec([None, 5, None], tf.uint8)])
    assert np.array_equal(in_graph(packed), unpacked)


@pytest.mark.parametrize("size", [1, 8, 13])
def test_bits_are_counted(size):
    packed = np.random.default_rng(0).integers(0, 256, [4, 2, size]).astype(np.uint8)
    assert np.array_equal(bits.count_bits(tf.constant(packed)), np.unpackbits(packed, axis=-1).sum(-1))
