"""Plain tar files whose members are read in place, by offset. Planning reads the headers once; see read_index."""

import io
import posixpath
import tarfile
from typing import Any

import tensorflow as tf

from solo_dist.errors import DataError
from solo_dist.storage import file_io, urls

Place = tuple[int, int]
"""Offset of the content of a member in its tar file, and bytes."""

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
"""First two bytes of a file -> how it is compressed."""
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_STORE_BUFFER, _DISK_BUFFER = 1 << 23, 1 << 12
"""Bytes that are read at a time while headers are sought: a store needs long for each request, however small."""


class TarError(DataError):
    """A tar file that cannot be used; the message names the file and the remedy."""


def is_tar(path: str) -> bool:
    """Whether a path names a tar file."""
    return path.lower().endswith(_SUFFIXES)


def read_index(path: str) -> dict[str, Place]:
    """The files in a tar by their names, without "./" at the beginning; of equal names the last one, as tar does.

    Raises:
      TarError: there is no such file, or it is compressed, damaged or truncated. StoreError: a store does not answer.
    """
    try:
        with _opened(path) as file:
            kind = _COMPRESSED.get(file.read(2))
            if kind:
                raise TarError(
                    f"{path} is compressed ({kind}), so it cannot be read by offsets; make a plain tar of it."
                )
            file.seek(0)
            return _index_of(file, path)
    except tf.errors.NotFoundError as error:
        raise TarError(f"There is no file {path}.") from error


def within_folder(index: dict[str, Place]) -> tuple[str, dict[str, Place]]:
    """The folder that holds all files of a tar, such as "images/" if it was made of a folder, and the files in it."""
    prefix = posixpath.commonprefix([min(index, default=""), max(index, default="")])
    folder = prefix[: prefix.rfind("/") + 1]
    return folder, {name.removeprefix(folder): place for name, place in index.items()} if folder else index


def read_member(path: str, place: Place) -> bytes:
    """The content of a file in a tar, with its checked header in one request.

    Raises:
      TarError: it is not there, so the tar file has changed since its index was read. StoreError.
    """
    offset, size = place
    try:
        data = file_io.read_range(path, offset - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE + size)
        header = tarfile.TarInfo.frombuf(data[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tf.errors.NotFoundError as error:
        raise TarError(f"There is no file {path}.") from error
    except tarfile.HeaderError:
        header = None
    if header is None or header.size != size or len(data) != tarfile.BLOCKSIZE + size:
        raise TarError(
            f"{path} has changed since it was planned: the file at byte {offset} is gone. Delete the output, and plan "
            "again."
        )
    return data[tarfile.BLOCKSIZE :]


def _index_of(file: Any, path: str) -> dict[str, Place]:
    found: dict[str, Place] = {}
    try:
        tar = tarfile.TarFile(fileobj=file)
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep all members in memory
            if member.isreg() and not member.issparse():
                found[member.name.removeprefix("./")] = (member.offset_data, member.size)
        # If a header is damaged, `next` returns None as at the end; but the true end is a block of zeros.
        file.seek(tar.offset)
        is_whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    except tarfile.TarError as error:
        raise TarError(f"{path} is not a tar file, or damaged ({error}); copy or make it again.") from error
    if not is_whole:
        raise TarError(f"{path} is damaged or truncated at byte {tar.offset}; copy or make it again.")
    return found


def _opened(path: str) -> io.BufferedReader:
    return io.BufferedReader(_AnyFile(path), _STORE_BUFFER if urls.is_remote(path) else _DISK_BUFFER)


class _AnyFile(io.RawIOBase):
    """A file on a disk or in a store that is read at any place."""

    def __init__(self, path: str):
        self._path, self._at, self._size = path, 0, file_io.size(path)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As `seek` of any file."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, or a part of it at the end of the file."""
        length = max(0, min(len(buffer), self._size - self._at))
        data = file_io.read_range(self._path, self._at, length) if length else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
