"""Files that are either complete or absent, with checksums, on a disk or in a bucket."""

import contextlib
import os
import struct
import tempfile
import uuid
from collections.abc import Iterable, Iterator

import google_crc32c
import tensorflow as tf

from solo_dist.storage import s3
from solo_dist.storage.opening import opened
from solo_dist.storage.retries import with_retries
from solo_dist.storage.urls import is_remote

PARTIAL = ".partial"
"""Ends the name of a file that is being written."""


def frame_record(record: bytes) -> bytes:
    """A record as TFRecord files hold it: length, checksum, data, checksum."""

    def masked_crc(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(record))
    return b"".join((length, masked_crc(length), record, masked_crc(record)))


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yields a path to write to; the file replaces `path` when the block has succeeded.

    For s3:// it is a local file, which is uploaded. gs:// publishes an object when it is closed, so there it is `path`
    itself. On a disk it is another name, which is renamed after the content is on the disk: otherwise a reset of the
    machine could leave an empty file.
    """
    if path.startswith("s3://"):
        with tempfile.TemporaryDirectory(prefix="solo_dist_") as folder:
            yield f"{folder}/object"
            s3.upload(f"{folder}/object", path)
        return
    if is_remote(path):
        yield path
        return
    temporary = f"{path}.{uuid.uuid4().hex[:12]}{PARTIAL}"  # process ids repeat between machines
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def write_atomically(path: str, chunks: Iterable[bytes]) -> tuple[int, str]:
    """Writes a file that is either complete or absent; returns its bytes and CRC-32C.

    In gs://, an incomplete file can appear if `chunks` fails.
    """
    size, crc = 0, 0
    with replacing(path) as written, tf.io.gfile.GFile(written, "wb") as file:
        file.write(b"")  # without a write, GFile creates no file
        for chunk in chunks:
            file.write(chunk)
            size, crc = size + len(chunk), google_crc32c.extend(crc, chunk)
    return size, f"{crc:08x}"


def checksum(path: str) -> str:
    """CRC-32C of a file as eight hexadecimal digits. Repeated for as long as an error of a store may pass."""

    def read() -> str:
        crc = 0
        with opened(path) as file:
            while chunk := file.read(1 << 22):
                crc = google_crc32c.extend(crc, chunk)
        return f"{crc:08x}"

    return with_retries(read, path)
