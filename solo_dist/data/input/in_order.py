"""Reading the records of a folder of shards one after another: for evaluation in tiles, reports and inspection.

From stores that TensorFlow cannot read itself, each shard is copied first, as in training.
"""

from collections.abc import Collection, Iterator

import numpy as np
import tensorflow as tf

from solo_dist.config import DataConfig
from solo_dist.data.input.cache import RemoteShards, open_shards
from solo_dist.data.schema import Manifest, Record, ShardError, parse_record


def read_records(manifest: Manifest) -> Iterator[Record]:
    """All records in order. Raises ShardError if a file is damaged, StoreError if a store cannot be read."""
    for file, path in zip(manifest.files, _paths(manifest), strict=True):
        try:
            for serialized in tf.data.TFRecordDataset(path):
                yield parse_record(serialized)
        except tf.errors.OpError as error:
            raise ShardError(
                f"{manifest.folder}/{file.name} is damaged ({error.message.splitlines()[0]}); shard the data again."
            ) from error


def read_images(manifest: Manifest, image_ids: Collection[int]) -> dict[int, np.ndarray]:
    """Images uint8 [h,w,3] by image id; ids that are not in the folder are left out.

    Raises:
      ShardError: a shard cannot be read.
    """
    wanted = tf.constant(sorted(image_ids), tf.int64)
    features = {"image": tf.io.FixedLenFeature([], tf.string), "image_id": tf.io.FixedLenFeature([], tf.int64)}
    paths = tf.data.Dataset.from_generator(lambda: _paths(manifest), output_signature=tf.TensorSpec([], tf.string))
    parsed = tf.data.TFRecordDataset(paths).map(lambda record: tf.io.parse_single_example(record, features))
    found: dict[int, np.ndarray] = {}
    try:
        for record in parsed.filter(lambda record: tf.reduce_any(record["image_id"] == wanted)):
            found.setdefault(int(record["image_id"]), tf.io.decode_jpeg(record["image"], channels=3).numpy())
            if len(found) == len(wanted):
                break
    except tf.errors.OpError as error:
        reason = error.message.splitlines()[0]
        raise ShardError(f"The images of {manifest.folder} could not be read: {reason}") from error
    return found


def _paths(manifest: Manifest) -> Iterator[str]:
    """Paths to read the shards from, in their order."""
    shards = open_shards(manifest, DataConfig()) or RemoteShards(manifest)
    return map(shards.path, range(len(manifest.files)))
