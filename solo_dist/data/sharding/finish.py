"""The last step of the shard tool: the files beside the shards, and the manifest that makes the folder complete."""

import dataclasses
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from solo_dist.data import schema
from solo_dist.data.schema import Manifest, ShardError, ShardFile
from solo_dist.data.sharding.coco import Catalogue, CocoImage, Rejection
from solo_dist.data.sharding.reasons import remedies
from solo_dist.data.sharding.records import Counts, ShardSettings
from solo_dist.data.sharding.worker import ShardNote, ShardTask
from solo_dist.storage.atomic import write_atomically


def finish(
    output: str,
    images: str,
    settings: ShardSettings,
    catalogue: Catalogue,
    tasks: list[ShardTask],
    notes: list[ShardNote],
    rejected: list[Rejection],
    fingerprint: str,
) -> Manifest:
    """Writes the side files of a folder whose shards are all made and, last, its manifest.

    Args:
      output: the folder.
      images: folder of the images, for the message if none could be used.
      settings: of the records.
      catalogue: of the data set.
      tasks: one a shard.
      notes: the note of each.
      rejected: what was rejected before the shards were made.
      fingerprint: of data and settings.
    Raises:
      ShardError: no image could be used.
    """
    rejected = rejected + [rejection for note in notes for rejection in note.rejected]
    kept = {image.id: image for note in notes for image in note.images}
    if not kept:
        first = next(rejection for rejection in rejected if rejection.kind == "image")
        raise ShardError(
            f"None of the {len(catalogue.images)} images in {images} can be used; the first, "
            f"{first.file}: {first.reason}. Check --images."
            + "".join(f" Or: {text}." for text in remedies([first.reason]))
        )
    noticed = [notice for note in notes for notice in note.notices]
    for name, entries in ((schema.REJECTED, rejected), (schema.NOTICES, noticed)):
        lines = ((json.dumps(dataclasses.asdict(entry)) + "\n").encode() for entry in entries)
        if entries or name == schema.REJECTED:
            write_atomically(f"{output}/{name}", lines)
    counts = Counts()
    for note in notes:
        counts.add(note.counts)
    filled = [note for note in notes if note.offsets]
    index = [(number, offset) for number, note in enumerate(filled) for offset in note.offsets]
    manifest = Manifest(
        schema_version=schema.SCHEMA_VERSION,
        num_images=len(kept),
        num_instances=counts.instances,
        rejected=_by_reason(rejected),
        notices=_by_reason(noticed),
        pixel_range=settings.pixel_range,
        canvas=settings.canvas,
        grid=settings.grid,
        categories=catalogue.categories,
        files=[note.file for note in filled],
        augmented_copies=settings.augmented_copies,
        keep_original=settings.keep_original,
        statistics=dataclasses.asdict(counts),
        side_files=[
            _side_file(output, schema.RECORDS, [_npy(np.array(index, np.int64))]),
            _side_file(output, schema.ANNOTATIONS, _annotations(tasks, catalogue, kept)),
        ],
        fingerprint=fingerprint,
        folder=output,
    )
    write_atomically(f"{output}/{schema.MANIFEST}", [manifest.to_json().encode()])
    for task, note in zip(tasks, notes, strict=True):
        if not note.offsets:
            tf.io.gfile.remove(task.shard)
    return manifest


def _by_reason(entries: list[Rejection]) -> dict[str, int]:
    return dict(Counter(entry.reason for entry in entries).most_common())


def _annotations(tasks: list[ShardTask], catalogue: Catalogue, kept: dict[int, CocoImage]) -> Iterator[bytes]:
    """The COCO json for evaluation: gzip members, one from each shard, which may be concatenated."""

    def member(text: str) -> bytes:
        return gzip.compress(text.encode(), mtime=0)

    yield member('{"annotations": [')
    separator = b""
    for task in tasks:
        with tf.io.gfile.GFile(task.annotations, "rb") as file:
            part = file.read()
        if gzip.decompress(part):
            yield separator + part
            separator = member(",")
    images = [dataclasses.asdict(kept[image.id]) for image in catalogue.images if image.id in kept]
    yield member(f'], "images": {json.dumps(images)}, "categories": {json.dumps(catalogue.categories)}}}')


def _side_file(output: str, name: str, chunks: Iterable[bytes]) -> ShardFile:
    return ShardFile(name, 0, *write_atomically(f"{output}/{name}", chunks))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
