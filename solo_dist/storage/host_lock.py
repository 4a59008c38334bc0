"""A lock between the threads and processes of one host, on a local file."""

import contextlib
import fcntl
import os
from collections.abc import Iterator


@contextlib.contextmanager
def exclusive(path: str, wait: bool = True) -> Iterator[None]:
    """Holds the lock of a local file, which is made, with its folder, if it does not exist.

    The lock of a process that dies is free again.

    Args:
      path: the file; it stays.
      wait: whether to wait for whoever holds it.
    Raises:
      BlockingIOError: it is held, and not to be waited for. OSError: the file cannot be made or locked.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
