"""Reading single records of a folder of shards inside the graph, by number, so that a broken one is one broken record.

Records are read by byte offset: any order is possible and restoring a position costs nothing. A record that cannot be
read (checksum, not a record, picture that does not decode) is reported on stderr by file and number, and the next
record of the folder stands in for it; how many may go that way is data.max_bad_records.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from solo_dist.data.schema import Manifest, ShardError, load_record_index, parse_record

MAX_CONSECUTIVE = 64
"""Broken records in a row after which reading stops whatever data.max_bad_records allows."""


class StoredPicture(NamedTuple):
    """A record that was read, with its picture decoded."""

    image: tf.Tensor
    """uint8 [height, width, 3]; no pixel where the record could not be read."""
    serialized: tf.Tensor
    """string scalar, for `parse_record`."""


class RecordReader:
    """Reads and decodes record i of a folder."""

    def __init__(self, manifest: Manifest, max_bad_records: int):
        """Raises ShardError where the folder holds no record or its index does not belong to it."""
        if not manifest.num_records:
            raise ShardError(f"{manifest.folder} holds no image; shard data that has some.")
        self.manifest = manifest
        self.num_records = manifest.num_records
        self._attempts = 1 + min(max_bad_records, MAX_CONSECUTIVE, self.num_records - 1)
        index = load_record_index(manifest)
        self._paths = tf.constant([f"{manifest.folder}/{file.name}" for file in manifest.files])
        self._index = tf.constant(np.concatenate([index, _lengths(index, manifest)[:, None]], axis=1))

    def read(self, number: tf.Tensor) -> tuple[StoredPicture, tf.Tensor]:
        """Record `number` (int64 scalar), or the first readable one after it.

        Returns:
          The record and how many before it were broken, int32 scalar.
        Raises:
          InvalidArgumentError: naming file and record, where more are broken than data.max_bad_records allows.
        """

        def read_next(attempt: tf.Tensor, _: StoredPicture) -> tuple[tf.Tensor, StoredPicture]:
            return attempt + 1, self._read_or_report((number + tf.cast(attempt, tf.int64)) % self.num_records)

        def is_missing(attempt: tf.Tensor, picture: StoredPicture) -> tf.Tensor:
            return (tf.size(picture.image) == 0) & (attempt < self._attempts)

        nothing = _nothing()
        shapes = (tf.TensorShape([]), StoredPicture(tf.TensorShape([None, None, 3]), tf.TensorShape([])))
        attempts, picture = tf.while_loop(is_missing, read_next, (tf.constant(0), nothing), shape_invariants=shapes)
        missing = tf.size(picture.image) == 0
        path, place = self._describe(number)
        message = [path, "record", place, "is broken; data.max_bad_records allows no more."]
        with tf.control_dependencies([tf.debugging.Assert(~missing, message)]):
            return StoredPicture(*(tf.identity(part) for part in picture)), attempts - 1

    def explain(self, number: int) -> str:
        """What is wrong with record `number`: file, place in it and reason, in one line. Reads it again, eagerly."""
        path, place = (value.numpy() for value in self._describe(tf.constant(number, tf.int64)))
        try:
            decode_picture(next(iter(self._records(tf.constant(number, tf.int64)))))
            reason = "readable now"
        except StopIteration:
            reason = "the file ends before it"
        except tf.errors.OpError as error:
            reason = (error.message or type(error).__name__).splitlines()[0]
        return f"record {place} of {path.decode()}: {reason}"

    def _describe(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Path and number within the file."""
        file = self._index[number, 0]
        first = tf.searchsorted(self._index[:, 0], file[None])[0]
        return tf.gather(self._paths, file), number - tf.cast(first, tf.int64)

    def _records(self, number: tf.Tensor) -> tf.data.Dataset:
        """A data set of the one serialized record."""
        file, offset, length = tf.unstack(tf.gather(self._index, number), num=3)
        # The buffer is as long as the record: one request to a bucket, and nothing read beyond it.
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(self._paths, file)[None], compression_type="", buffer_size=length, byte_offsets=[offset]
        )
        return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(1)

    def _read_or_report(self, number: tf.Tensor) -> StoredPicture:
        # Errors can be caught in the graph only at the level of a data set.
        records = self._records(number).map(decode_picture).ignore_errors()
        picture = records.concatenate(tf.data.Dataset.from_tensors(_nothing())).take(1).get_single_element()
        path, place = self._describe(number)

        def report() -> tf.Operation:
            return tf.print("Broken record", place, "of", path, output_stream="file:///dev/stderr")

        tf.cond(tf.size(picture.image) == 0, lambda: report(), tf.no_op)
        return picture


def decode_picture(serialized: tf.Tensor) -> StoredPicture:
    """A serialized record -> its picture. Raises InvalidArgumentError where any part of the record is not valid."""
    record = parse_record(serialized)
    image = tf.io.decode_image(record.image, channels=3, expand_animations=False)
    return StoredPicture(tf.ensure_shape(image, [None, None, 3]), serialized)


def _nothing() -> StoredPicture:
    return StoredPicture(tf.zeros([0, 0, 3], tf.uint8), tf.constant(b""))


def _lengths(index: np.ndarray, manifest: Manifest) -> np.ndarray:
    """Bytes of each record, int64 [num_records], its frame included."""
    sizes = np.array([file.bytes for file in manifest.files], np.int64)
    in_order = index.ndim == 2 and index.shape == (manifest.num_records, 2) and bool((np.diff(index[:, 0]) >= 0).all())
    if not in_order:
        raise ShardError(f"{manifest.folder} has an index that does not belong to it; shard the data again.")
    ends = np.append(index[1:, 1], 0)
    last = np.append(index[1:, 0] != index[:-1, 0], True)
    return np.where(last, sizes[index[:, 0]], ends) - index[:, 1]
