"""Keeps XLA's start-up lines out of the log: three lines for its developers, one of which begins with WARNING."""

import os

import tensorflow as tf


def start_xla_quietly() -> None:
    """Triggers XLA's one-time start-up log while stderr goes to /dev/null.

    XLA logs through Abseil, which none of TensorFlow's variables turn off. Errors are Python exceptions, which still
    come through. Call it after the devices are set up.
    """
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        tf.function(lambda x: x + 1.0, jit_compile=True)(tf.constant(0.0))
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
