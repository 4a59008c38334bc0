"""The paths that shards are read from: their own folder, or copies on a local disk, made when they are first read.

All processes of a host may share a cache. The name of a copy is the checksum and name of its shard; it appears once
the copy is complete and verified. A process that fetches a shard holds the shard's lock, so that no other process
fetches it too. If the limit is reached, nothing more is fetched: as records are read in random order, replacing one
shard by another would gain nothing.
"""

import contextlib
import logging
import os
import tempfile

import google_crc32c
import tensorflow as tf

from solo_dist.config import DataConfig
from solo_dist.data.schema import Manifest, ShardFile
from solo_dist.errors import ConfigError, StoreError
from solo_dist.storage import file_io, retries, urls
from solo_dist.storage.atomic import PARTIAL, checksum
from solo_dist.storage.host_lock import exclusive
from solo_dist.storage.opening import opened

_PIECE = 1 << 22

log = logging.getLogger(__name__)


class RemoteShards:
    """The shards of a folder in an object store, by their number in the manifest."""

    def __init__(self, manifest: Manifest):
        self._manifest = manifest

    def path(self, number: int) -> str:
        """The path to read a shard from."""
        return f"{self._manifest.folder}/{self._manifest.files[number].name}"

    def path_again(self, number: int) -> str:
        """The path to read a shard from after one of its records could not be read; waits for the store to answer.

        Raises:
          StoreError: the store does not answer, so the record is not known to be damaged.
        """
        path = RemoteShards.path(self, number)
        file_io.exists(path)
        return path


class CachedShards(RemoteShards):
    """The shards of any folder, copied to a local disk when they are first read.

    If TensorFlow cannot read the folder itself, a shard that is not copied is an error.
    """

    def __init__(self, manifest: Manifest, folder: str, limit: int):
        """Opens the cache.

        Args:
          manifest: of the folder of shards.
          folder: of the cache; made if it does not exist.
          limit: bytes that all files in the cache may have together, including those of other data sets.
        Raises:
          ConfigError: the folder of the cache cannot be used.
        """
        super().__init__(manifest)
        self._folder, self._limit = folder.rstrip("/"), limit
        self._verified: set[int] = set()
        self._left_out: set[int] = set()
        self._full = False
        self._needed = not urls.is_read_in_graph(manifest.folder)
        try:
            with self._lock("cache"):
                pass
        except OSError as error:
            raise ConfigError(f"data.cache_dir={folder} cannot be used: {error.strerror}.") from error

    def path(self, number: int) -> str:
        """The path of the copy, made or verified if that has not happened yet; of the original if it does not fit.

        Raises:
          StoreError: it does not fit, and TensorFlow cannot read the original.
        """
        file = self._manifest.files[number]
        if number not in self._verified and (number in self._left_out or not self._ensure(file)):
            if self._needed:
                raise StoreError(
                    f"{super().path(number)} could not be copied to {self._folder} (see the warning above); "
                    "free space, or set data.cache_dir and data.cache_bytes."
                )
            self._left_out.add(number)
            return super().path(number)
        self._verified.add(number)
        return self._copy(file)

    def path_again(self, number: int) -> str:
        """The path of the copy, which is verified once more, and fetched again if it is damaged or missing."""
        if number in self._left_out:
            return super().path_again(number)
        self._verified.discard(number)
        return self.path(number)

    def _copy(self, file: ShardFile) -> str:
        return f"{self._folder}/{file.crc32c}_{file.name}"

    def _lock(self, name: str) -> contextlib.AbstractContextManager[None]:
        return exclusive(f"{self._folder}/{name}.lock")  # makes the folder too, if someone deleted it

    def _ensure(self, file: ShardFile) -> bool:
        """Whether there is a verified copy now."""
        copy = self._copy(file)
        try:
            with self._lock(os.path.basename(copy)):
                if os.path.exists(copy):
                    if self._is_right(copy, file):
                        return True
                    log.warning("%s is damaged; it is fetched again.", copy)
                    with contextlib.suppress(FileNotFoundError):
                        os.remove(copy)
                return self._reserve(copy + PARTIAL, file.bytes) and self._fetch(file, copy)
        except OSError as error:
            log.warning("The cache %s takes no more: %s.", self._folder, error.strerror)
            return False

    def _is_right(self, copy: str, file: ShardFile) -> bool:
        try:
            return checksum(copy) == file.crc32c
        except tf.errors.OpError:  # deleted meanwhile, or the disk is damaged
            return False

    def _reserve(self, partial: str, size: int) -> bool:
        """Makes a file of that size if the limit allows it.

        The file reserves the room for all processes. storage.atomic.replacing could not do that: its file has another
        name in each process, and begins empty.
        """
        with self._lock("cache"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(partial)  # left by a process that was killed
            used = 0
            for entry in os.scandir(self._folder):
                with contextlib.suppress(FileNotFoundError):
                    used += entry.stat().st_size
            if used + size > self._limit:
                if not self._full:  # warn only once
                    self._full = True
                    log.warning(
                        "The cache %s is full (data.cache_bytes=%d): shards of %s that are not in it %s.",
                        *(self._folder, self._limit, self._manifest.folder),
                        "cannot be read" if self._needed else "are read from there every time",
                    )
                return False
            with open(partial, "wb") as made:
                made.truncate(size)
            return True

    def _fetch(self, file: ShardFile, copy: str) -> bool:
        def fetch() -> str:
            crc = 0
            with opened(f"{self._manifest.folder}/{file.name}") as source, open(partial, "r+b") as out:
                while piece := source.read(_PIECE):
                    out.write(piece)
                    crc = google_crc32c.extend(crc, piece)
            return f"{crc:08x}"

        partial = copy + PARTIAL
        try:
            crc = retries.with_retries(fetch, self._manifest.folder)
            if crc == file.crc32c:
                with self._lock("cache"):  # `_reserve` of another process must not see both names, or neither
                    os.replace(partial, copy)
                return True
            log.warning(
                "%s/%s has checksum %s, the manifest says %s.", self._manifest.folder, file.name, crc, file.crc32c
            )
        except tf.errors.NotFoundError:
            log.warning("%s/%s does not exist any more.", self._manifest.folder, file.name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(partial)
        return False


def open_shards(manifest: Manifest, data: DataConfig) -> RemoteShards | None:
    """CachedShards if data.cache_dir is set or needed, RemoteShards for other URLs, None if it is on a local disk.

    None means that the shards are read directly from the manifest's folder.
    """
    if data.cache_dir:
        return CachedShards(manifest, data.cache_dir, data.cache_bytes)
    if not urls.is_remote(manifest.folder):
        return None
    if urls.is_read_in_graph(manifest.folder):
        return RemoteShards(manifest)
    folder = f"{tempfile.gettempdir()}/solo_dist_shards_{os.getuid()}"
    log.warning("TensorFlow cannot read %s itself: shards are copied to %s (data.cache_dir).", manifest.folder, folder)
    return CachedShards(manifest, folder, data.cache_bytes)
