"""The plan of a folder of shards: which images and annotations each shard gets. It is written before any shard is made.

A plan is the files of OUTPUT/.progress that end in .part.jsonl, one a shard: a line with the images, then a line an
annotation. `plan.json` beside them, written last, has their checksums and makes the plan complete. So a task needs
the plan and the images, and not the annotations.
"""

import dataclasses
import functools
import importlib.metadata
import itertools
import json
import zlib
from typing import Any

import PIL.features
import tensorflow as tf

from solo_dist import __version__
from solo_dist.data import schema
from solo_dist.data.pixel_range import PixelRange
from solo_dist.data.schema import ShardError, ShardFile
from solo_dist.data.sharding.classes import Classes
from solo_dist.data.sharding.rejection import Rejection
from solo_dist.data.sharding.shard_job import ShardJob, completed, fingerprint
from solo_dist.storage import file_io, urls

PLAN = "plan.json"
REJECTED = "rejected.jsonl"
"""What cannot be assigned to a shard: entries of images that cannot be used, annotations of no image."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `plan.json` holds, and the paths of everything that belongs to a shard."""

    fingerprint: str
    """A text that identifies data and settings."""
    categories: list[dict[str, Any]]
    """{"id", "name"} of each class."""
    category_ids: list[dict[str, int]]
    """For each source, the id in `categories` by the id in its annotations."""
    frequencies: dict[str, str]
    """LVIS: r, c or f by the id of the category; else empty."""
    parts: list[ShardFile]
    """One a shard, in order; num_records is the number of its images."""
    rejected: ShardFile
    versions: dict[str, str]
    """Versions of the programs that the bytes of records depend on."""
    output: str = ""
    """Folder that it was read from; not stored."""

    @property
    def num_shards(self) -> int:
        """Shards, of which those without a usable image are left out at the end."""
        return len(self.parts)

    @property
    def num_images(self) -> int:
        """Entries of images, whether their files can be used or not."""
        return sum(part.num_records for part in self.parts)

    @property
    def id(self) -> str:
        """Short form of the fingerprint, which notes of shards carry."""
        return schema.crc32c(self.fingerprint.encode())

    @property
    def pixel_range(self) -> PixelRange | None:
        """Black and white of images of more than 8 bits; None: there are none."""
        found = json.loads(self.fingerprint).get("pixel_range")
        return (found[0], found[1]) if found else None

    @functools.cached_property
    def _firsts(self) -> list[int]:
        return [0, *itertools.accumulate(part.num_records for part in self.parts)]

    @property
    def classes(self) -> Classes:
        """The classes of the categories."""
        ids = [category["id"] for category in self.categories]
        of_sources = [{int(number): ids.index(new) for number, new in known.items()} for known in self.category_ids]
        return Classes(ids, of_sources)

    def first_image(self, shard: int) -> int:
        """The number in the data set of the first image of a shard."""
        return self._firsts[shard]

    def shard_name(self, shard: int) -> str:
        """File name of a shard."""
        return f"shard-{shard:05d}-of-{self.num_shards:05d}.tfrecord"

    def scratch(self, task: str) -> str:
        """This machine's folder for files of a task on their way to a store."""
        return f"{urls.scratch_folder(self.output)}-{self.id}-{task}"

    def read_rejected(self) -> list[Rejection]:
        """What is in no shard. Raises ShardError if the file is damaged."""
        text = read_checked(progress_folder(self.output), self.rejected)
        return [Rejection(**json.loads(line)) for line in text.splitlines()]

    def to_json(self) -> bytes:
        """The content of plan.json."""
        values = dataclasses.asdict(self)
        del values["output"]
        return json.dumps(values).encode()


def progress_folder(output: str) -> str:
    """The folder of everything that is removed once the shards are complete."""
    return f"{output}/{schema.PROGRESS}"


def read_checked(folder: str, file: ShardFile) -> bytes:
    """The content of a file of a plan. Raises ShardError if it is lost or damaged."""
    path = f"{folder}/{file.name}"
    try:
        data = file_io.read(path)
    except tf.errors.NotFoundError:
        data = b""
    if schema.crc32c(data) != file.crc32c:
        raise ShardError(
            f"{path} is {'damaged' if data else 'lost'}. Run the same command with --plan (or without a step); "
            "finished shards are kept."
        )
    return data


def load_plan(output: str) -> Plan | None:
    """The plan in a folder; None if there is none. Raises ShardError if it is damaged."""
    path = f"{progress_folder(output)}/{PLAN}"
    try:
        text = file_io.read(path)
    except tf.errors.NotFoundError:
        return None
    try:
        values = json.loads(text)
        values["parts"] = [ShardFile(**part) for part in values["parts"]]
        values["rejected"] = ShardFile(**values["rejected"])
        return Plan(**values, output=output)
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(
            f"{path} is damaged ({error}); delete it, then run the same command with --plan (or without a step)."
        ) from error


def plan_for(job: ShardJob) -> Plan | None:
    """The plan in the output of a job; None if there is none.

    The annotations are not read again: planning has done that, and the other steps may run on machines without them.

    Raises:
      ShardError: it is of other settings, or was made by other versions of the programs that make records.
    """
    plan = load_plan(job.output)
    if plan is None:
        return None
    whole, crc = completed(job, plan.fingerprint)
    same = fingerprint(whole.settings, crc, whole.num_shards) == plan.fingerprint
    if not same or len(plan.category_ids) != len(job.sources):
        refuse(job.output)
    here = versions()
    if plan.versions != here:
        names = [name for name in {**plan.versions, **here} if plan.versions.get(name) != here.get(name)]
        then, now = (", ".join(f"{name} {of.get(name, 'none')}" for name in names) for of in (plan.versions, here))
        raise ShardError(
            f"{job.output} was begun with {then}, and this machine has {now}, which may give other bytes. Install the "
            "same versions, or delete the folder to begin anew."
        )
    return plan


def versions() -> dict[str, str]:
    """Versions of the programs that the bytes of records depend on."""
    packages = {name: importlib.metadata.version(name) for name in ("tensorflow", "numpy", "pycocotools", "Pillow")}
    libraries = {"libjpeg": str(PIL.features.version("jpg")), "zlib": zlib.ZLIB_RUNTIME_VERSION}
    return {"solo_dist": __version__, **packages, **libraries}


def refuse(output: str) -> None:
    """Raises ShardError, as a folder is of other data or settings."""
    raise ShardError(f"{output} holds shards of other data or settings; delete the folder, or choose another --output.")
