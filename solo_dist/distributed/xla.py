"""Which parts XLA compiles, and a way to keep its start-up messages out of the log."""

import os

import tensorflow as tf


def compile_scope(choice: str) -> str:
    """What XLA compiles on this machine for a value of `runtime.compile`: none, loss or step.

    For auto it is what `benchmark --what=step` found faster: the whole step on a GPU, nothing on a CPU.
    """
    if choice != "auto":
        return choice
    return "step" if tf.config.list_physical_devices("GPU") else "none"


def start_xla_quietly() -> None:
    """Triggers XLA's one-time start-up log, three lines for its developers, while stderr goes to /dev/null.

    XLA logs through Abseil, which none of TensorFlow's variables turn off. Errors are Python exceptions, which still
    come through. Call it after the devices are set up.
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
