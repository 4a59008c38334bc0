"""Opening a file on a disk or in a store to read it."""

from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from solo_dist.storage import s3


def opened(path: str) -> AbstractContextManager[Any]:
    """A file to read bytes from, from its start: `with opened(path) as file: file.read(1000)`.

    Raises:
      tf.errors.OpError: when it is opened or read.
    """
    return s3.opened(path) if path.startswith("s3://") else tf.io.gfile.GFile(path, "rb")


def size_and_time(path: str) -> tuple[int, int]:
    """Bytes of a file, and its last change in nanoseconds. Raises tf.errors.OpError."""
    if path.startswith("s3://"):
        return s3.size_and_time(path)
    stat = tf.io.gfile.stat(path)
    return int(stat.length), int(stat.mtime_nsec)
