"""Precision policies and determinism."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from solo_dist.distributed.precision import set_precision
from solo_dist.errors import ConfigError


@pytest.mark.parametrize(
    ("precision", "compute"), [("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")]
)
def test_layers_compute_in_the_precision_and_store_float32(precision, compute):
    try:
        set_precision(precision)
        layer = keras.layers.Dense(2)
        assert keras.backend.standardize_dtype(layer(np.ones((1, 3), np.float32)).dtype) == compute
        assert layer.kernel.dtype == "float32"
    finally:
        set_precision("float32")


def test_unknown_precision_is_named():
    with pytest.raises(ConfigError, match="runtime.precision='fp8'"):
        set_precision("fp8")


@pytest.mark.parametrize("deterministic", [False, True])
def test_seed_and_determinism(deterministic):
    code = f"""
import random, numpy as np, tensorflow as tf
from solo_dist.distributed.precision import set_determinism
set_determinism(3, {deterministic})
print(random.random(), np.random.rand(), float(tf.random.uniform([])))
print(tf.config.experimental.tensor_float_32_execution_enabled())
"""
    commands = [[sys.executable, "-c", code]] * 2
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands)
    assert first == second
    assert first.split()[-1] == str(not deterministic)
