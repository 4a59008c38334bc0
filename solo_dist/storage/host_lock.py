"""A lock between the threads and processes of one host, on a local file."""

import contextlib
import fcntl
import os
from collections.abc import Iterator


@contextlib.contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Holds the lock of a local file, which is made, with its folder, if it does not exist.

    Waits until the lock is free. If the process ends in any way, the lock is released; the file stays.

    Raises:
      OSError: the file cannot be made or locked.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
