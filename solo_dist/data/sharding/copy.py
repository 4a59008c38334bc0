"""Copying a folder of shards between a disk and object stores: in parallel, verified, only files not yet in the target.

The manifest is removed before anything is changed and written after everything else has been verified, so a reader
finds the whole data set or none. Uploads to gs:// go through google-cloud-storage, those to s3:// through boto3.
"""

import base64
import concurrent.futures
import contextlib
import dataclasses
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tqdm

from solo_dist.data import schema
from solo_dist.data.schema import Manifest, ShardError, ShardFile
from solo_dist.storage import file_io, opening, retries, store_errors, urls
from solo_dist.storage.atomic import PARTIAL, checksum, write_atomically

WORKERS = 16
_PIECE = 1 << 22
_UPLOADS_AT_A_TIME = 256


def copy_shards(source: str, target: str) -> Manifest:
    """Copies a complete folder of shards, or finishes a copy that was interrupted.

    Every file in the target, also one that was there before, is compared with size and checksum in the manifest.

    Args:
      source: folder, a path or URL.
      target: folder, a path or URL; may hold a part of the same data set, but no other files.
    Returns:
      The manifest, of the target.
    Raises:
      ShardError: the source is incomplete or damaged, or the target holds other files.
      StoreError: a store cannot be read or written.
    """
    source, target = source.rstrip("/"), target.rstrip("/")
    manifest = schema.load_manifest(source)
    text = file_io.read(f"{source}/{schema.MANIFEST}")
    files = [*manifest.files, *manifest.side_files]
    for name in (schema.REJECTED, schema.NOTICES):
        if file_io.exists(f"{source}/{name}"):
            data = file_io.read(f"{source}/{name}")
            files.append(ShardFile(name, 0, len(data), schema.crc32c(data)))
    _refuse_strangers(target, text, files)
    found = stored(target, files)
    missing = [file for file in files if found.get(file.name) != (file.bytes, file.crc32c)]
    if missing:
        file_io.remove(f"{target}/{schema.MANIFEST}")
        _copy(source, target, missing, sum(file.bytes for file in files))
        _verify(target, missing)
    file_io.write(f"{target}/{schema.MANIFEST}", text)
    # Not read again: TensorFlow remembers for some seconds the sizes of objects that have just been replaced.
    return dataclasses.replace(manifest, folder=target)


def _refuse_strangers(target: str, manifest: bytes, files: Sequence[ShardFile]) -> None:
    names = set(file_io.names(target))
    if schema.MANIFEST in names and file_io.read(f"{target}/{schema.MANIFEST}") != manifest:
        raise ShardError(f"{target} holds other shards; delete the folder, or choose another.")
    ours = {schema.MANIFEST, schema.PROGRESS, *(file.name for file in files)}
    strange = sorted(name for name in names if re.sub(rf"\.\w+{PARTIAL}$", "", name) not in ours)
    if strange:
        raise ShardError(f"{target} holds other files ({strange[0]}); choose an empty folder.")


# ---- What a folder holds


def stored(folder: str, files: Iterable[ShardFile]) -> dict[str, tuple[int, str]]:
    """Bytes and CRC-32C, by name, of those of the given files that are in the folder.

    gs:// lists the checksums. On a disk and in other stores, files of the right size are read to compute them; the
    checksum of a file of another size is "".
    """
    wanted = {file.name: file for file in files}
    if folder.startswith("gs://"):
        return {name: facts for name, facts in _objects(folder).items() if name in wanted}
    here = [wanted[name] for name in file_io.names(folder) if name in wanted]

    def facts(file: ShardFile) -> tuple[int, str]:
        size = file_io.size(f"{folder}/{file.name}")
        return size, checksum(f"{folder}/{file.name}") if size == file.bytes else ""

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool, store_errors.clear_errors(folder):
        return dict(zip((file.name for file in here), pool.map(facts, here), strict=True))


def is_intact(folder: str, files: Sequence[ShardFile]) -> bool:
    """Whether a folder holds all of these files, undamaged."""
    return stored(folder, files) == {file.name: (file.bytes, file.crc32c) for file in files}


def _objects(folder: str) -> dict[str, tuple[int, str]]:
    """Bytes and CRC-32C, by name, of all objects directly in a folder of gs://, from its listing."""
    with store_errors.clear_errors(folder):
        bucket, prefix = _bucket(folder)
        blobs = bucket.list_blobs(prefix=prefix, delimiter="/", fields="items(name,size,crc32c),nextPageToken")
        return {blob.name.removeprefix(prefix): (blob.size, _hex(blob.crc32c)) for blob in blobs}


def _hex(crc: str) -> str:
    """Eight hexadecimal digits of a checksum in base 64."""
    return base64.b64decode(crc).hex()


def _bucket(folder: str) -> tuple[Any, str]:
    """The bucket of a gs:// folder, and what the names of the folder's objects start with."""
    from google.cloud import storage as google_storage

    name, _, prefix = folder.removeprefix("gs://").partition("/")
    # No project: only making buckets needs one, so users need not set one.
    return google_storage.Client(project=None).bucket(name), f"{prefix}/" if prefix else ""


# ---- Copying


def _copy(source: str, target: str, files: Sequence[ShardFile], total: int) -> None:
    done = total - sum(file.bytes for file in files)
    with tqdm.tqdm(desc=f"to {target}", total=total, initial=done, unit="B", unit_scale=True, mininterval=1.0) as bar:
        if target.startswith("gs://") and not urls.is_remote(source):
            for start in range(0, len(files), _UPLOADS_AT_A_TIME):
                _upload(source, target, files[start : start + _UPLOADS_AT_A_TIME], bar)
            return
        if not urls.is_remote(target):
            tf.io.gfile.makedirs(target)
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool, store_errors.clear_errors(target):
            copies = [pool.submit(_copy_file, source, target, file, bar) for file in files]
            try:
                for copy in concurrent.futures.as_completed(copies):
                    copy.result()
            finally:
                pool.shutdown(cancel_futures=True)


class _Watched(io.FileIO):
    """A file whose reading advances a progress bar. Parts that another attempt reads again do not count."""

    def __init__(self, path: str, bar: tqdm.tqdm):
        super().__init__(path)
        self._bar, self._seen = bar, 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        new = self.tell() - self._seen
        if new > 0:
            self._bar.update(new)
            self._seen += new
        return data


def _upload(source: str, target: str, files: Sequence[ShardFile], bar: tqdm.tqdm) -> None:
    """Copies from a disk to gs://. An object appears once it has arrived whole with the right checksum."""
    from google.cloud.storage import transfer_manager

    with store_errors.clear_errors(target), contextlib.ExitStack() as stack:
        bucket, prefix = _bucket(target)
        pairs = [
            (stack.enter_context(_Watched(f"{source}/{file.name}", bar)), bucket.blob(prefix + file.name))
            for file in files
        ]
        transfer_manager.upload_many(
            pairs, worker_type=transfer_manager.THREAD, max_workers=WORKERS, raise_exception=True
        )


def _copy_file(source: str, target: str, file: ShardFile, bar: tqdm.tqdm) -> None:
    def pieces() -> Iterator[bytes]:
        with opening.opened(f"{source}/{file.name}") as read:
            while piece := read.read(_PIECE):
                yield piece

    remote = target if urls.is_remote(target) else source
    retries.with_retries(lambda: write_atomically(f"{target}/{file.name}", pieces()), remote)
    bar.update(file.bytes)


def _verify(target: str, files: Sequence[ShardFile]) -> None:
    found = stored(target, files)
    for file in files:
        if found.get(file.name) != (file.bytes, file.crc32c):
            raise ShardError(
                f"{target}/{file.name} {_difference(file, found.get(file.name))}. Run the same command again; if it "
                "fails again, the source is damaged: shard the data again."
            )


def _difference(file: ShardFile, found: tuple[int, str] | None) -> str:
    """How the copy of a file, given by its bytes and CRC-32C if it exists, differs from the manifest."""
    if found is None:
        return "is missing after the copy"
    size, crc = found
    if size != file.bytes:
        return f"has {size} bytes, the manifest says {file.bytes}"
    return f"has CRC-32C {crc}, the manifest says {file.crc32c}"
