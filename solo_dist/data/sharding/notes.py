"""What a shard is made of, and the note that it leaves when it is complete.

Notes are how the machines of a cluster know of each other's work: a shard with a note of the same plan whose files have
the note's checksums is finished, whoever made it and whenever. It depends on no clock.
"""

import concurrent.futures
import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from solo_dist.data.schema import ShardFile
from solo_dist.data.sharding.coco_image import CocoImage
from solo_dist.data.sharding.copy import stored
from solo_dist.data.sharding.counts import Counts
from solo_dist.data.sharding.images import repaired
from solo_dist.data.sharding.plan import Plan, progress_folder, read_checked
from solo_dist.data.sharding.reading import Reading
from solo_dist.data.sharding.records import ImageResult
from solo_dist.data.sharding.rejection import Rejection
from solo_dist.storage import file_io

_NOTES_AT_A_TIME = 16


@dataclasses.dataclass(frozen=True)
class ShardNote:
    """Facts about a finished shard. If the note exists in `.progress/`, the shard is complete."""

    plan: str
    """Id of the plan that the shard was made after."""
    file: ShardFile
    offsets: list[int]
    images: list[CocoImage]
    """Those that are in the records, with the sizes that were found; if they were cut, their tiles."""
    classes: list[list[int]]
    """The classes of each of these images that are trained on, ascending."""
    annotations: ShardFile
    """The file with the annotations for evaluation."""
    rejected: list[Rejection]
    notices: list[Rejection]
    counts: Counts

    def add(self, made: ImageResult) -> None:
        """Adds the records, rejections, notices and counts of an image."""
        self.rejected.extend(made.rejected)
        self.notices.extend(made.notices)
        self.counts.add(made.counts)
        for image, annotations in made.parts:
            self.images.append(image)
            self.classes.append(sorted({one.category for one in annotations if not one.untrainable}))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ShardNote":
        """From what `dataclasses.asdict` makes."""
        read = dict(values)
        for name in ("file", "annotations"):
            read[name] = ShardFile(**values[name])
        for name in ("rejected", "notices"):
            read[name] = [Rejection(**one) for one in values[name]]
        read["images"] = [CocoImage(**image) for image in values["images"]]
        read["counts"] = Counts(**values["counts"])
        return cls(**read)


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A shard to make, as it is sent to a worker."""

    images: tuple[str, ...]
    """Folder or tar file of the images of each source."""
    plan: str
    """Id of the plan that it belongs to."""
    output: str
    """Folder of the shards."""
    first: int
    """Number of the first image in the data set."""
    part: ShardFile
    """Its images and annotations."""
    name: str
    """Name of the TFRecord file."""
    scratch: str
    """Local folder for files on their way to a store."""

    @property
    def note(self) -> str:
        """Path of the note that completes the shard."""
        return f"{self._passing}.note.json"

    @property
    def annotations(self) -> str:
        """Path of its annotations for evaluation."""
        return f"{self._passing}.annotations.gz"

    @property
    def _passing(self) -> str:
        return f"{progress_folder(self.output)}/{self.part.name.partition('.')[0]}"


def read_part(task: ShardTask) -> tuple[list[CocoImage], dict[int, list[dict[str, Any]]]]:
    """The images of a shard, and their raw annotations by id of the image. Raises ShardError if the file is damaged."""
    first, *lines = read_checked(progress_folder(task.output), task.part).decode().split("\n")
    raw_of: dict[int, list[dict[str, Any]]] = {}
    for line in filter(None, lines):
        raw = json.loads(line)
        raw_of.setdefault(raw["image_id"], []).append(raw)
    return [CocoImage(*values) for values in json.loads(first)], raw_of


def shard_task(plan: Plan, shard: int, images: tuple[str, ...], scratch: str = "") -> ShardTask:
    """What to make a shard of a plan of.

    Args:
      plan: of all shards.
      shard: its number.
      images: folder or tar file of the images of each source.
      scratch: local folder for files on their way to a store; not needed to read.
    """
    first, part, name = plan.first_image(shard), plan.parts[shard], plan.shard_name(shard)
    return ShardTask(images, plan.id, plan.output, first, part, name, scratch)


def valid_notes(plan: Plan, shards: Iterable[int], images: tuple[str, ...], reading: Reading) -> dict[int, ShardNote]:
    """The notes, by shard, of those that are finished: files unchanged, and no image has been repaired since.

    Raises:
      StoreError: a store does not answer.
    """
    tasks = {shard: shard_task(plan, shard, images) for shard in shards}
    with concurrent.futures.ThreadPoolExecutor(_NOTES_AT_A_TIME) as pool:
        read = dict(zip(tasks, pool.map(_read_note, tasks.values()), strict=True))
    notes = {shard: note for shard, note in read.items() if note is not None}
    shards_found = stored(plan.output, [note.file for note in notes.values()])
    annotations_found = stored(progress_folder(plan.output), [note.annotations for note in notes.values()])
    return {
        shard: note
        for shard, note in notes.items()
        if shards_found.get(note.file.name) == (note.file.bytes, note.file.crc32c)
        and annotations_found.get(note.annotations.name) == (note.annotations.bytes, note.annotations.crc32c)
        and not _is_repaired(tasks[shard], note, reading)
    }


def _read_note(task: ShardTask) -> ShardNote | None:
    """None: there is no note, or it is damaged or of another plan."""
    try:
        note = ShardNote.from_json(json.loads(file_io.read(task.note)))
    except (tf.errors.NotFoundError, ValueError, KeyError, TypeError):
        return None
    return note if note.plan == task.plan and note.file.name == task.name else None


def _is_repaired(task: ShardTask, note: ShardNote, reading: Reading) -> bool:
    lacking = {rejection.id for rejection in note.rejected if rejection.kind == "image"}
    return bool(lacking) and any(repaired(task.images, read_part(task)[0], lacking, reading))
