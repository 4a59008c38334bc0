"""Where shards are read from: their own folder, or copies on a local disk, made when they are first read.

All processes of a host may share a cache. A shard is there under its name and checksum once it is complete and
verified; while it is fetched its lock is held, so that nobody else fetches it too. When the limit is reached nothing
more is fetched: with records read in random order, throwing out one shard for another would gain nothing.
"""

import contextlib
import logging
import os

import google_crc32c
import tensorflow as tf

from solo_dist.config import DataConfig
from solo_dist.data.schema import Manifest, ShardFile
from solo_dist.errors import ConfigError
from solo_dist.storage import file_io, retries, urls
from solo_dist.storage.atomic import PARTIAL, checksum
from solo_dist.storage.host_lock import exclusive

_PIECE = 1 << 22

log = logging.getLogger(__name__)


class RemoteShards:
    """The shards of a folder in an object store, by their number in the manifest."""

    def __init__(self, manifest: Manifest):
        self._manifest = manifest

    def path(self, number: int) -> str:
        """Where to read a shard from."""
        return f"{self._manifest.folder}/{self._manifest.files[number].name}"

    def path_again(self, number: int) -> str:
        """The same after one of its records could not be read: first waits for the store to answer.

        Raises:
          StoreError: it does not, so that the record is not to blame.
        """
        path = RemoteShards.path(self, number)
        file_io.exists(path)
        return path


class CachedShards(RemoteShards):
    """The shards of a folder, wherever it is, that are copied to a local disk when they are first read."""

    def __init__(self, manifest: Manifest, folder: str, limit: int):
        """Opens the cache.

        Args:
          manifest: of the folder of shards.
          folder: of the cache; made if it does not exist.
          limit: bytes that all files in it may have together, those of other data sets too.
        Raises:
          ConfigError: the folder cannot be used.
        """
        super().__init__(manifest)
        self._folder, self._limit = folder.rstrip("/"), limit
        self._verified: set[int] = set()
        self._left_out: set[int] = set()
        self._full = False
        try:
            with self._lock("cache"):
                pass
        except OSError as error:
            raise ConfigError(f"data.cache_dir={folder} cannot be used: {error.strerror}.") from error

    def path(self, number: int) -> str:
        """The copy, which is made or verified if that has not happened yet; the original if there is no room."""
        file = self._manifest.files[number]
        if number not in self._verified and (number in self._left_out or not self._ensure(file)):
            self._left_out.add(number)
            return super().path(number)
        self._verified.add(number)
        return self._copy(file)

    def path_again(self, number: int) -> str:
        """The copy, verified once more and fetched again if it is damaged or gone."""
        if number in self._left_out:
            return super().path_again(number)
        self._verified.discard(number)
        return self.path(number)

    def _copy(self, file: ShardFile) -> str:
        return f"{self._folder}/{file.crc32c}_{file.name}"

    def _lock(self, name: str) -> contextlib.AbstractContextManager[None]:
        return exclusive(f"{self._folder}/{name}.lock")  # it makes the folder, which anyone may delete at any time

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
        except tf.errors.OpError:  # gone since, or a part of the disk that cannot be read
            return False

    def _reserve(self, partial: str, size: int) -> bool:
        """Makes a file of that size if the limit allows it."""
        with self._lock("cache"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(partial)  # of a process that died
            used = 0
            for entry in os.scandir(self._folder):
                with contextlib.suppress(FileNotFoundError):
                    used += entry.stat().st_size
            if used + size > self._limit:
                if not self._full:  # said once
                    self._full = True
                    log.warning(
                        "The cache %s is full (data.cache_bytes=%d): shards that are not in it are read from %s every "
                        "time.",
                        *(self._folder, self._limit, self._manifest.folder),
                    )
                return False
            with open(partial, "wb") as made:
                made.truncate(size)
            return True

    def _fetch(self, file: ShardFile, copy: str) -> bool:
        def fetch() -> str:
            crc = 0
            with tf.io.gfile.GFile(f"{self._manifest.folder}/{file.name}", "rb") as source, open(partial, "r+b") as out:
                while piece := source.read(_PIECE):
                    out.write(piece)
                    crc = google_crc32c.extend(crc, piece)
            return f"{crc:08x}"

        partial = copy + PARTIAL
        try:
            crc = retries.with_retries(fetch, self._manifest.folder)
            if crc == file.crc32c:
                with self._lock("cache"):  # who adds up the folder meanwhile would see neither name, or both
                    os.replace(partial, copy)
                return True
            log.warning(
                "%s/%s has checksum %s, the manifest says %s.", self._manifest.folder, file.name, crc, file.crc32c
            )
        except tf.errors.NotFoundError:
            log.warning("%s/%s is gone.", self._manifest.folder, file.name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(partial)
        return False


def open_shards(manifest: Manifest, data: DataConfig) -> RemoteShards | None:
    """As the recipe says; None: the paths in the manifest's folder, on a disk, need no attention."""
    if data.cache_dir:
        return CachedShards(manifest, data.cache_dir, data.cache_bytes)
    return RemoteShards(manifest) if urls.is_remote(manifest.folder) else None
