"""Keeps XLA's greeting out of the log: three lines for its developers, one of which begins with WARNING."""

import os

import tensorflow as tf


def start_xla_quietly() -> None:
    """Compiles a trifle with stderr closed, so that XLA says what it says once a process to nobody.

    It logs through Abseil, which heeds none of TensorFlow's variables. Errors are Python exceptions and still come.
    Call it after the devices are set up.
    """
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        tf.function(lambda x: x + 1.0, jit_compile=True)(tf.constant(0.0))
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
