"""Files on a disk or in an object store. Only this module works around what tf.io.gfile does not report of stores.

    urls.prepare([workdir, images])                        # before the first use of URLs
    file_io.write(f"{workdir}/config.json", data)          # whole, or not at all
    for name in file_io.names(f"{workdir}/checkpoints"): ...

Use these functions, and those of opening.py, in place of tf.io.gfile's, which do not know s3:// (storage/s3.py does).
Of gs://, its exists, isdir and listdir take a store that does not answer for one that has nothing there, and its
makedirs makes objects that stand for folders, which nobody needs.

Calls are repeated for as long as what went wrong may pass; see storage/retries.py.
"""

import contextlib
import logging
import os
import posixpath
import re
import tempfile
from collections.abc import Iterable, Iterator

import tensorflow as tf

# The public listdir calls isdir first, which hides errors.
from tensorflow.python.lib.io import _pywrap_file_io

from solo_dist.errors import StoreError
from solo_dist.storage import opening, s3
from solo_dist.storage.atomic import replacing, write_atomically
from solo_dist.storage.retries import with_retries
from solo_dist.storage.store_errors import clear_errors, explained
from solo_dist.storage.urls import is_remote

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jfif", ".mpo")
"""Suffixes of the files in a folder that are taken for images."""
_FIRST_READ = 1 << 19
log = logging.getLogger(__name__)


def read(path: str) -> bytes:
    """The content of a file.

    Raises:
      tf.errors.NotFoundError: there is no such file.
      StoreError: it cannot be read.
    """
    return with_retries(lambda: _read(path), path)


def _read(path: str) -> bytes:
    if path.startswith("s3://"):
        with s3.opened(path) as file:
            return file.read()
    # Without a length, GFile asks for the size, which gs:// may remember from before another process wrote.
    with tf.io.gfile.GFile(path, "rb") as file:
        data = file.read(_FIRST_READ)
    # GFile reads small pieces, each with a request; this op needs one request.
    return data if len(data) < _FIRST_READ else tf.io.read_file(path).numpy()


def read_range(path: str, start: int, length: int) -> bytes:
    """A part of a file, without the rest being read: `length` bytes from `start`, or fewer if the file ends before.

    Raises:
      As `read`.
    """
    return with_retries(lambda: _read_range(path, start, length), path)


def _read_range(path: str, start: int, length: int) -> bytes:
    try:
        if path.startswith("s3://"):
            return s3.read_range(path, start, length)
        with tf.io.gfile.GFile(path, "rb") as file:
            file.seek(start)
            return file.read(length)
    except tf.errors.OutOfRangeError:  # the start is beyond the end
        return b""


def exists(path: str) -> bool:
    """Whether there is such a file (not a folder). Raises StoreError if the store does not answer."""

    def call() -> bool:
        if not is_remote(path):
            return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)
        if path.startswith("s3://"):
            return s3.size_and_time(path)[0] >= 0
        with tf.io.gfile.GFile(path, "rb") as file:
            file.read(1)
        return True

    try:
        return with_retries(call, path)
    except tf.errors.NotFoundError:
        return False


def size(path: str) -> int:
    """Bytes of a file. Raises NotFoundError, StoreError."""
    return with_retries(lambda: opening.size_and_time(path)[0], path)


def write(path: str, data: bytes) -> None:
    """Writes a file, and its folder, so that readers see the old content or the new one, never a part.

    Raises:
      StoreError: it cannot be written.
    """

    def call() -> None:
        if not is_remote(path):
            tf.io.gfile.makedirs(posixpath.dirname(path) or ".")
        with replacing(path) as written, tf.io.gfile.GFile(written, "wb") as file:
            file.write(data)

    try:
        with_retries(call, path)
    except (tf.errors.NotFoundError, OSError) as error:
        raise explained(error, path) from error


def upload(source: str, target: str) -> None:
    """Copies a file of this machine to a store; it appears there whole. Raises StoreError."""
    copy = s3.upload if target.startswith("s3://") else lambda *paths: tf.io.gfile.copy(*paths, overwrite=True)
    with_retries(lambda: copy(source, target), target)


def write_through(path: str, chunks: Iterable[bytes], scratch: str) -> tuple[int, str]:
    """Writes a file that is either complete or absent; returns its bytes and CRC-32C.

    Args:
      path: of the file, a path or URL.
      chunks: its content.
      scratch: local folder, made if need be, for a file on its way to a store.
    Raises:
      tf.errors.OpError: a disk cannot be written. StoreError: a store cannot be written.
    """
    if not is_remote(path):
        return write_atomically(path, chunks)
    tf.io.gfile.makedirs(scratch)
    local = f"{scratch}/{posixpath.basename(path)}"
    facts = write_atomically(local, chunks)
    upload(local, path)
    tf.io.gfile.remove(local)
    return facts


def remove(path: str) -> None:
    """Removes a file if it exists."""
    with contextlib.suppress(tf.errors.NotFoundError):
        with_retries(lambda: s3.remove(path) if path.startswith("s3://") else tf.io.gfile.remove(path), path)


def names(folder: str) -> list[str]:
    """Names of the files and folders in a folder, sorted; empty if it does not exist."""
    is_s3 = folder.startswith("s3://")
    if not is_remote(folder):
        return _local_names(folder)
    try:
        children = with_retries(lambda: s3.names(folder) if is_s3 else _pywrap_file_io.GetChildren(folder), folder)
    except tf.errors.NotFoundError:
        return []
    return sorted({name.rstrip("/") for name in children} - {""})


def _local_names(folder: str) -> list[str]:
    """As `names`. A name that is not UTF-8 is left out with a warning: TensorFlow cannot open such a file."""
    try:
        found = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise explained(error, folder) from error
    usable = [name for name in found if _is_utf8(name)]
    if len(usable) < len(found):
        odd = sorted(os.fsencode(name) for name in set(found).difference(usable))
        log.warning("%s: %d files are left out, as their names are not UTF-8, such as %s.", folder, len(odd), odd[0])
    return sorted(usable)


def _is_utf8(name: str) -> bool:
    """Whether a name has none of the characters by which Python replaces bytes that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_folder(path: str) -> bool:
    """Whether there is a folder of that name. Raises StoreError."""
    if path.startswith("s3://"):
        return bool(names(path))
    with clear_errors(path):
        return tf.io.gfile.isdir(path)


def matches(pattern: str) -> list[str]:
    """Paths that match a pattern with "*", "?" and "[...]", sorted. Raises StoreError.

    Files have brackets in their names too: a pattern that is a file means the file, and one that matches nothing has
    its brackets taken as they are.
    """
    if exists(pattern):
        return [pattern]
    if pattern.startswith("s3://"):
        return with_retries(lambda: sorted(s3.matches(pattern) or s3.matches(pattern.replace("[", "[[]"))), pattern)
    with clear_errors(pattern), _clear_names(pattern):
        paths = sorted(tf.io.gfile.glob(pattern) or tf.io.gfile.glob(pattern.replace("[", "[[]")))
    if not paths and is_remote(pattern):
        names(posixpath.dirname(re.split(r"[*?\[]", pattern)[0]))  # raises if the store does not answer
    return paths


@contextlib.contextmanager
def _clear_names(pattern: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise StoreError(f"{pattern}: a name there is not UTF-8; rename the file {error.object!r}.") from error


def files_below(folder: str) -> list[str]:
    """Paths of the files in a folder and all folders in it, in any order. Raises StoreError."""
    if folder.startswith("s3://"):
        return with_retries(lambda: s3.files_below(folder), folder)
    if not is_remote(folder):
        return list(_local_files_below(folder, ()))
    with clear_errors(folder):
        return [f"{root.rstrip('/')}/{name}" for root, _, names in tf.io.gfile.walk(folder) for name in names]


def _local_files_below(folder: str, above: tuple[str, ...]) -> Iterator[str]:
    """As `files_below`; a link to a folder that it is in is not followed, as that would have no end."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for name in _local_names(folder):
        path = f"{folder.rstrip('/')}/{name}"
        if os.path.isdir(path):
            yield from _local_files_below(path, (*above, real))
        else:
            yield path


def remove_folder(folder: str) -> None:
    """Removes a folder with everything in it, if it exists."""
    if not is_remote(folder):
        with contextlib.suppress(tf.errors.NotFoundError):
            with_retries(lambda: tf.io.gfile.rmtree(folder), folder)
        return
    for name in names(folder):
        if exists(f"{folder}/{name}"):
            remove(f"{folder}/{name}")
        else:
            remove_folder(f"{folder}/{name}")


@contextlib.contextmanager
def staged(folder: str) -> Iterator[str]:
    """A local folder for files that a library writes one by one and renames; at the end they are copied to `folder`.

    The files of subfolders are copied first, then the others by name: of a SavedModel, saved_model.pb is the last.
    """
    if not is_remote(folder):
        with clear_errors(folder):
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="solo_dist_") as local:
        yield local
        for root, _, files in tf.io.gfile.walk(local, topdown=False):
            for name in sorted(files):
                write(f"{folder}{root[len(local) :]}/{name}", read(f"{root}/{name}"))


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A path on this machine of a file for a library that opens it itself; what comes from a store is removed again.

    Raises NotFoundError, StoreError.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="solo_dist_") as folder:
        local = f"{folder}/{posixpath.basename(path)}"
        write(local, read(path))
        yield local
