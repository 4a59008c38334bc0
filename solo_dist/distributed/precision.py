"""Numeric precision and determinism of a run; both are global in TensorFlow and Keras and are set once, first."""

import keras
import tensorflow as tf

from solo_dist.errors import ConfigError

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def set_precision(precision: str) -> None:
    """Sets the dtype that layers compute in; variables stay float32.

    Args:
      precision: float32, bfloat16 or float16. With float16 the training step scales the loss.

    Raises:
      ConfigError: for anything else.
    """
    if precision not in _POLICIES:
        raise ConfigError(f"runtime.precision={precision!r} is not one of {', '.join(_POLICIES)}.")
    keras.config.set_dtype_policy(_POLICIES[precision])


def set_determinism(seed: int, deterministic: bool) -> None:
    """Seeds Python, NumPy, TensorFlow and Keras; if `deterministic`, every op gives the same bits every time.

    An op that has no deterministic form then raises an error. TensorFloat-32 is turned off too, so that float32 means
    float32 on GPUs of every generation; without determinism TensorFlow's default stays, which is on.
    """
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
        tf.config.experimental.enable_tensor_float_32_execution(False)
