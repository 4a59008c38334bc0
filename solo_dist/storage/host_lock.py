"""A lock between the threads and processes of one host, on a local file."""

import contextlib
import fcntl
import os
from collections.abc import Iterator


@contextlib.contextmanager
def exclusive(path: str, wait: bool = True) -> Iterator[None]:
    """Holds the lock of a local file, which is made, with its folder, if it does not exist.

    If the process ends in any way, the lock is released.

    Args:
      path: the file; it stays.
      wait: whether to wait until it is free.
    Raises:
      BlockingIOError: it is held, and `wait` is False. OSError: the file cannot be made or locked.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
