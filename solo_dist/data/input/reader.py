"""Reading single records of a folder of shards by number, in the graph. A broken record does not affect the others.

Records are read by byte offset, so any order is possible and restoring a position takes no time. A record that cannot
be read (wrong checksum, not a record, image that does not decode) is reported on stderr by file and number; the next
record of the folder replaces it. data.max_bad_records limits the number of such records. In an object store or a cache,
a record is read once more before it counts as broken.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist import errors
from solo_dist.data.geometry import REDUCTIONS
from solo_dist.data.image_io import DCT_METHOD
from solo_dist.data.input.cache import RemoteShards
from solo_dist.data.schema import Manifest, ShardError, load_record_index, parse_record

MAX_CONSECUTIVE = 64
"""Broken records in a row after which reading stops whatever data.max_bad_records allows."""

Reduce = Callable[[tf.Tensor], tf.Tensor]
"""From the size of a stored image, int32 [2], to one of geometry.REDUCTIONS, int32 scalar."""

_REMEDY = "Shard the data again, or raise data.max_bad_records."


class StoredImage(NamedTuple):
    """A record that was read, with its image decoded."""

    image: tf.Tensor
    """uint8 [height, width, 3]; no pixel if the record could not be read."""
    serialized: tf.Tensor
    """string scalar, for `parse_record`."""


class Readings(NamedTuple):
    """The records that were read for an element."""

    record: tf.Tensor
    """int64 [n], the numbers of the records that were asked for."""
    broken: tf.Tensor
    """int32 [n], how many records in a row, from each of these on, could not be read."""


def no_readings(count: int) -> Readings:
    """What stands for `count` readings if nothing is read."""
    return Readings(tf.zeros([count], tf.int64), tf.zeros([count], tf.int32))


class RecordReader:
    """Reads and decodes record i of a folder."""

    def __init__(
        self,
        manifest: Manifest,
        max_bad_records: int,
        reduce: Reduce | None = None,
        shards: RemoteShards | None = None,
    ):
        """Takes what to read.

        Args:
          manifest: of the folder.
          max_bad_records: broken records in a row after which `read` fails.
          reduce: the factor by which an image is shrunk while it is decoded; None: 1.
          shards: the paths to read from, if they are not those in the manifest's folder.
        Raises:
          ShardError: the folder holds no record, or its index belongs to other shards.
        """
        if not manifest.num_records:
            raise ShardError(f"{manifest.folder} holds no image; shard data that has some.")
        self.num_records = manifest.num_records
        self._allowed = max_bad_records
        self._shards = shards
        self._decode = tf.autograph.experimental.do_not_convert(lambda _, serialized: decode_image(serialized, reduce))
        self._attempts = 1 + min(max_bad_records, MAX_CONSECUTIVE, self.num_records - 1)
        index = load_record_index(manifest)
        self._paths = tf.constant([f"{manifest.folder}/{file.name}" for file in manifest.files])
        # Of each record only its offset is kept, as there can be millions.
        self._offsets = tf.constant(index[:, 1])
        self._firsts = tf.constant(_first_records(index, manifest))
        self._sizes = tf.constant([file.bytes for file in manifest.files], tf.int64)

    def read(self, number: tf.Tensor) -> tuple[StoredImage, tf.Tensor]:
        """Record `number` (int64 scalar), or the first readable one after it.

        Returns:
          The record, and the number of broken ones before it, int32 scalar.
        Raises:
          InvalidArgumentError: naming file and record, if more in a row are broken than data.max_bad_records allows.
        """

        def read_next(attempt: tf.Tensor, _: StoredImage) -> tuple[tf.Tensor, StoredImage]:
            return attempt + 1, self._read_or_report((number + tf.cast(attempt, tf.int64)) % self.num_records)

        def is_missing(attempt: tf.Tensor, stored: StoredImage) -> tf.Tensor:
            return _is_broken(stored) & (attempt < self._attempts)

        shapes = (tf.TensorShape([]), StoredImage(tf.TensorShape([None, None, 3]), tf.TensorShape([])))
        attempts, stored = tf.while_loop(is_missing, read_next, (tf.constant(0), _nothing()), shape_invariants=shapes)
        broken = (number + tf.range(tf.cast(attempts, tf.int64))) % self.num_records
        with tf.control_dependencies([self._assert_few(tf.size(stored.image) > 0, broken)]):
            return StoredImage(*(tf.identity(part) for part in stored)), attempts - 1

    def limit_bad_records(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Batches with the keys of `Readings`, [B, n] each, -> the same without them.

        Counts distinct broken records. Beyond data.max_bad_records reading raises InvalidArgumentError, which names
        them. If data.max_bad_records is 0, `read` has already failed at the first broken record.
        """

        def update(seen: tf.Tensor, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            read = Readings(*(batch[key] for key in Readings._fields))
            seen = tf.cond(tf.reduce_any(read.broken > 0), lambda: add(seen, read), lambda: seen)
            with tf.control_dependencies([seen]):
                return seen, {key: tf.identity(value) for key, value in batch.items() if key not in Readings._fields}

        def add(seen: tf.Tensor, read: Readings) -> tf.Tensor:
            counts = tf.cast(tf.reshape(read.broken, [-1]), tf.int64)
            before = tf.repeat(tf.cumsum(counts, exclusive=True), counts)
            broken = tf.repeat(tf.reshape(read.record, [-1]), counts) + tf.range(tf.reduce_sum(counts)) - before
            seen = tf.unique(tf.concat([seen, broken % self.num_records], axis=0)).y
            with tf.control_dependencies([self._assert_few(tf.size(seen) <= self._allowed, seen)]):
                return tf.identity(seen)

        return batches.scan(tf.zeros([0], tf.int64), tf.autograph.experimental.do_not_convert(update))

    def _assert_few(self, few: tf.Tensor, broken: tf.Tensor) -> tf.Operation:
        """Fails if not `few`, naming the records `broken`, int64 [n]."""
        names = tf.strings.reduce_join(self._describe(broken[:8]), separator=", ")
        count = tf.strings.as_string(tf.size(broken))
        message = tf.strings.join(
            [count, f" broken records, data.max_bad_records={self._allowed}: ", names, ". ", _REMEDY]
        )
        return tf.debugging.Assert(few, [message])

    def _describe(self, numbers: tf.Tensor) -> tf.Tensor:
        """Numbers of records, int64 [n] -> "record 3 of FILE", counted from 0 within the file, string [n]."""
        file = self._files(numbers)
        place = numbers - tf.gather(self._firsts, file)
        return tf.strings.join(["record ", tf.strings.as_string(place), " of ", tf.gather(self._paths, file)])

    def _files(self, numbers: tf.Tensor) -> tf.Tensor:
        """The numbers of the files of records, int64 [n] both."""
        return tf.searchsorted(self._firsts, numbers, side="right", out_type=tf.int64) - 1

    def _place(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """File, byte offset and length of a record, its frame included, int64 scalars."""
        file, offset = self._files(number[None])[0], tf.gather(self._offsets, number)
        following = tf.minimum(number + 1, self.num_records - 1)
        is_last = (following == number) | (self._files(following[None])[0] != file)
        end = tf.where(is_last, tf.gather(self._sizes, file), tf.gather(self._offsets, following))
        return file, offset, end - offset

    def records(self, number: tf.Tensor, again: bool = False) -> tf.data.Dataset:
        """A data set of the one serialized record. It ends after an error, also if the file cannot be opened."""
        file, offset, length = self._place(number)
        # The buffer is as long as the record, so that nothing is read beyond it.
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=self._path(file, again)[None], compression_type="", buffer_size=length, byte_offsets=[offset]
        )
        records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
        # take(1) would not end if a file does not exist: it counts records, not failed attempts to open the file.
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(0), records))

    def _path(self, file: tf.Tensor, again: bool) -> tf.Tensor:
        if self._shards is None:
            return tf.gather(self._paths, file)
        find = self._shards.path_again if again else self._shards.path
        return tf.ensure_shape(tf.numpy_function(lambda number: find(int(number)).encode(), [file], tf.string), [])

    def _read_or_report(self, number: tf.Tensor) -> StoredImage:
        stored = self._readable(number)
        if self._shards is not None:
            stored = tf.cond(_is_broken(stored), lambda: self._readable(number, again=True), lambda: stored)

        def report() -> tf.Operation:
            return tf.print("Broken:", self._describe(number[None])[0], output_stream="file:///dev/stderr")

        tf.cond(_is_broken(stored), report, tf.no_op)
        return stored

    def _readable(self, number: tf.Tensor, again: bool = False) -> StoredImage:
        """The record, or nothing if it cannot be read."""
        # Inside the graph, errors can be caught only at the level of a data set.
        records = self.records(number, again).map(self._decode).ignore_errors()
        return records.concatenate(tf.data.Dataset.from_tensors(_nothing())).take(1).get_single_element()


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turns the errors that broken records and lost stores cause inside the graph into ShardError and StoreError."""
    try:
        yield
    except tf.errors.OpError as error:
        if lost := re.search(r"\b(StoreError|StoreUnavailable): (.*)", error.message):
            raise getattr(errors, lost[1])(lost[2]) from error
        named = re.search(rf"\d+ broken records, data\.max_bad_records=.*?{re.escape(_REMEDY)}", str(error), re.DOTALL)
        if not named:
            raise
        raise ShardError(named.group()) from error


def decode_image(serialized: tf.Tensor, reduce: Reduce | None = None) -> StoredImage:
    """A serialized record -> its image. Raises InvalidArgumentError if any part of the record is not valid."""
    record = parse_record(serialized)

    def decode(ratio: int) -> Callable[[], tf.Tensor]:
        return lambda: tf.io.decode_jpeg(record.image, channels=3, ratio=ratio, dct_method=DCT_METHOD)

    if reduce is None:
        return StoredImage(decode(1)(), serialized)
    factor = reduce(record.size)
    index = tf.reduce_sum(tf.cast(factor > REDUCTIONS, tf.int32))
    return StoredImage(tf.switch_case(index, [decode(ratio) for ratio in REDUCTIONS]), serialized)


def _is_broken(stored: StoredImage) -> tf.Tensor:
    return tf.size(stored.image) == 0


def _nothing() -> StoredImage:
    return StoredImage(tf.zeros([0, 0, 3], tf.uint8), tf.constant(b""))


def _first_records(index: np.ndarray, manifest: Manifest) -> np.ndarray:
    """The number of the first record of each file, int64 [num_files]."""
    if index.shape != (manifest.num_records, 2) or (np.diff(index[:, 0]) < 0).any():
        raise ShardError(f"{manifest.folder} has an index that does not belong to it; shard the data again.")
    return np.searchsorted(index[:, 0], np.arange(len(manifest.files)))
