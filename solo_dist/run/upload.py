"""Uploads of growing files: an object in a store cannot grow, so the whole file is copied again and again."""

import logging
import threading
from collections.abc import Sequence

import tensorflow as tf

from solo_dist.errors import StoreError
from solo_dist.storage import file_io

_SECONDS = 30.0
"""Time between copies; a curve in the store is at most this much behind."""

log = logging.getLogger(__name__)


class Uploader:
    """Copies a few growing files from a local folder to the same names in a store.

    Args:
      local: the local folder.
      remote: the folder in the store.
      last: a file that is read before all others and copied after them, so that in the store it never mentions
        something that is not there yet.
      folders: folders in `local` and `remote`, in which everything is copied.
      seconds: time between copies.
    """

    def __init__(self, local: str, remote: str, last: str, folders: Sequence[str], seconds: float = _SECONDS):
        self._local, self._remote, self._last, self._folders = local, remote, last, folders
        self._seconds = seconds
        self._copied: dict[str, int] = {}  # bytes of each file that are in the store
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploader", daemon=True)

    def fetch(self) -> None:
        """Replaces the local files by those in the store. Raises StoreError."""
        for folder in self._folders:
            file_io.remove_folder(f"{self._local}/{folder}")
        file_io.remove(f"{self._local}/{self._last}")
        for name in self._names(self._remote):
            data = file_io.read(f"{self._remote}/{name}")
            file_io.write(f"{self._local}/{name}", data)
            self._copied[name] = len(data)

    def start(self) -> None:
        """Makes the store equal to the local files, and copies what grows from now on. Raises StoreError."""
        here = self._names(self._local)
        for name in self._names(self._remote):
            if name not in here:
                file_io.remove(f"{self._remote}/{name}")
        self.publish()
        self._thread.start()

    def publish(self) -> None:
        """Returns when everything that the local files hold now is in the store. Raises StoreError."""
        with self._lock:
            contents = {name: file_io.read(f"{self._local}/{name}") for name in reversed(self._names(self._local))}
            for name, data in reversed(contents.items()):
                if self._copied.get(name) != len(data):
                    file_io.write(f"{self._remote}/{name}", data)
                    self._copied[name] = len(data)

    def size_of_newest(self, folder: str) -> int:
        """Bytes of the newest local file of a folder, the one with the last name."""
        names = file_io.names(f"{self._local}/{folder}")
        return tf.io.gfile.stat(f"{self._local}/{folder}/{names[-1]}").length if names else 0

    def close(self) -> None:
        """Copies the rest and ends the thread. Raises StoreError."""
        self._closed.set()
        self.publish()

    def _names(self, root: str) -> list[str]:
        """Names of the files that exist; `last` comes last."""
        names = [f"{folder}/{name}" for folder in self._folders for name in file_io.names(f"{root}/{folder}")]
        return [*names, self._last] if file_io.exists(f"{root}/{self._last}") else names

    def _run(self) -> None:
        while not self._closed.wait(self._seconds):
            try:
                self.publish()
            except StoreError as error:
                log.warning("%s Metrics and curves are kept in %s meanwhile.", error, self._local)
