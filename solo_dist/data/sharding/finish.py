"""The last step of the shard tool: the files beside the shards, and the manifest that makes the folder complete."""

import dataclasses
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from solo_dist.data import schema
from solo_dist.data.schema import Manifest, ShardError, ShardFile
from solo_dist.data.sharding.counts import Counts
from solo_dist.data.sharding.notes import ShardNote
from solo_dist.data.sharding.plan import PLAN, Plan, progress_folder
from solo_dist.data.sharding.reasons import counted, remedies
from solo_dist.data.sharding.rejection import Rejection
from solo_dist.data.sharding.shard_job import ShardJob
from solo_dist.storage import file_io
from solo_dist.storage.file_io import write_through

_SHOWN_REASONS = 3


def finish(plan: Plan, notes: list[ShardNote], job: ShardJob, scratch: str) -> Manifest:
    """Writes the side files of a folder whose shards are all made and, last, its manifest.

    Args:
      plan: of the shards.
      notes: the note of each, in order.
      job: with the settings of the records, and the folders.
      scratch: local folder for files on their way to a store, for the caller to remove.
    Raises:
      ShardError: no image could be used, or there is no instance to train on.
    """
    output, settings = plan.output, job.settings
    rejected = [*plan.read_rejected(), *(rejection for note in notes for rejection in note.rejected)]
    noticed = [notice for note in notes for notice in note.notices]
    noticed += _listed_again(notes)
    if not any(note.images for note in notes):
        raise ShardError(_no_image(plan, job, rejected))
    _write_entries(f"{output}/{schema.REJECTED}", rejected, scratch)
    if noticed:
        _write_entries(f"{output}/{schema.NOTICES}", noticed, scratch)
    counts = Counts()
    for note in notes:
        counts.add(note.counts)
    if not counts.instances:
        _leave_nothing(plan)
        raise ShardError(_no_instance(job, _by_reason(rejected)))
    filled = [note for note in notes if note.offsets]
    manifest = Manifest(
        schema_version=schema.SCHEMA_VERSION,
        num_images=sum(len(note.images) for note in notes),
        num_instances=counts.instances,
        rejected=_by_reason(rejected),
        notices=_by_reason(noticed),
        pixel_range=plan.pixel_range,
        tiling=settings.tiling,
        canvas=settings.canvas,
        grid=settings.grid,
        categories=plan.categories,
        files=[note.file for note in filled],
        augmented_copies=settings.augmented_copies,
        keep_original=settings.keep_original,
        statistics=dataclasses.asdict(counts),
        side_files=[
            _side_file(plan, schema.RECORDS, [_npy(_index(filled))], scratch),
            _side_file(plan, schema.IMAGE_CATEGORIES, [_npy(_image_categories(notes))], scratch),
            _side_file(plan, schema.ANNOTATIONS, _annotations(plan, notes), scratch),
        ],
        fingerprint=plan.fingerprint,
        folder=output,
    )
    file_io.write(f"{output}/{schema.MANIFEST}", manifest.to_json().encode())
    for note in notes:
        if not note.offsets:
            file_io.remove(f"{output}/{note.file.name}")
    return manifest


def _listed_again(notes: list[ShardNote]) -> Iterator[Rejection]:
    """A notice for each image whose file is that of an image before it: objects of one are background in the other."""
    seen_of: dict[int, set[str]] = {}
    for image in (image for note in notes for image in note.images):
        seen = seen_of.setdefault(image.source, set())
        if image.file_name in seen:
            yield Rejection("image", image.id, image.file_name, "image file is that of another image id too")
        seen.add(image.file_name)


def _leave_nothing(plan: Plan) -> None:
    """Makes room for another try with other flags; what was rejected stays, for people."""
    for shard in range(plan.num_shards):
        file_io.remove(f"{plan.output}/{plan.shard_name(shard)}")
    file_io.remove(f"{progress_folder(plan.output)}/{PLAN}")


def _no_image(plan: Plan, job: ShardJob, rejected: Sequence[Rejection]) -> str:
    """The error if no image can be used, with the reason of the first."""
    first = next(rejection for rejection in rejected if rejection.kind == "image")
    roots = " and ".join(dict.fromkeys(job.image_roots))
    return (
        f"None of the {plan.num_images} images in {roots} can be used; the first, {first.file}: {first.reason}. Check "
        "--images." + "".join(f" Or: {text}." for text in remedies([first.reason]))
    )


def _no_instance(job: ShardJob, rejected: Mapping[str, int]) -> str:
    """The error if there is no instance to train on, with the most frequent reasons."""
    annotations = " and ".join(source.annotations for source in job.sources)
    if not rejected:
        return f"{annotations} has no annotations, so there is nothing to train on."
    lines = counted(rejected, _SHOWN_REASONS)
    return f"No instance of {annotations} is left to train on: {'; '.join(lines)}."


def _write_entries(path: str, entries: Iterable[Rejection], scratch: str) -> None:
    write_through(path, ((json.dumps(dataclasses.asdict(entry)) + "\n").encode() for entry in entries), scratch)


def _by_reason(entries: list[Rejection]) -> dict[str, int]:
    return dict(Counter(entry.reason for entry in entries).most_common())


def _index(notes: list[ShardNote]) -> np.ndarray:
    """records.npy, int64 [num_records, 2]: number of the file, byte offset."""
    files = np.repeat(np.arange(len(notes)), [len(note.offsets) for note in notes])
    offsets = np.concatenate([np.array(note.offsets, np.int64) for note in notes])
    return np.stack([files, offsets], axis=1)


def _image_categories(notes: list[ShardNote]) -> np.ndarray:
    """image_categories.npy, int32 [P, 2]: image, class."""
    classes = [of_image for note in notes for of_image in note.classes]
    images = np.repeat(np.arange(len(classes), dtype=np.int32), [len(of_image) for of_image in classes])
    return np.stack([images, np.array([one for of_image in classes for one in of_image], np.int32)], axis=1)


def _annotations(plan: Plan, notes: list[ShardNote]) -> Iterator[bytes]:
    """The COCO json for evaluation: gzip members, one or two from each shard, which may be concatenated."""

    def member(text: str) -> bytes:
        return gzip.compress(text.encode(), mtime=0)

    yield member('{"annotations": [')
    separator = b""
    for note in notes:
        part = file_io.read(f"{progress_folder(plan.output)}/{note.annotations.name}")
        if gzip.decompress(part):
            yield separator + part
            separator = member(",")
    yield member('], "images": [')
    separator = b""
    for note in notes:
        if note.images:
            yield separator + member(", ".join(json.dumps(image.to_coco()) for image in note.images))
            separator = member(", ")
    known = {number: {"frequency": kind} for number, kind in plan.frequencies.items()}
    categories = [category | known.get(str(category["id"]), {}) for category in plan.categories]
    yield member(f'], "categories": {json.dumps(categories)}}}')


def _side_file(plan: Plan, name: str, chunks: Iterable[bytes], scratch: str) -> ShardFile:
    return ShardFile(name, 0, *write_through(f"{plan.output}/{name}", chunks, scratch))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
