"""Making the plan of a folder of shards: annotations are streamed, and what belongs to a shard goes to its file.

They are read once if they are one json in which images come first, as in COCO's own files, and twice otherwise. In
memory are the images, by id, and the annotations that are next to be written.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import google_crc32c
import tensorflow as tf

from solo_dist.data.schema import ShardFile, crc32c
from solo_dist.data.sharding import plan as plans
from solo_dist.data.sharding.catalogue import CatalogueBuilder, named_category, numbered, read_images
from solo_dist.data.sharding.categories import Categories
from solo_dist.data.sharding.coco_image import CocoImage
from solo_dist.data.sharding.images import find_range
from solo_dist.data.sharding.plan import Plan
from solo_dist.data.sharding.rejection import Rejection
from solo_dist.data.sharding.shard_count import default_count
from solo_dist.data.sharding.shard_job import ShardJob, checksum_of, fingerprint
from solo_dist.errors import ConfigError
from solo_dist.storage import file_io, urls

_WAITING_BYTES = 64 << 20
_UPLOADS_AT_A_TIME = 16


def make_plan(job: ShardJob) -> Plan:
    """Writes the plan of a job into its output.

    Raises:
      CocoError: annotations are not usable. TarError: a tar file is not usable. ConfigError: more shards than images.
        tf.errors.OpError: the disk is full, for example. StoreError: a store cannot be read or written.
    """
    target = plans.progress_folder(job.output)
    with _local_folder(target) as folder:
        parts, planned = _stream(job, folder)
        rejected = "".join(json.dumps(dataclasses.asdict(entry)) + "\n" for entry in planned.rejected).encode()
        file_io.write(f"{folder}/{plans.REJECTED}", rejected)
        plan = _described(job, parts.files(), planned, rejected)
        if folder != target:
            _upload(folder, target, [*plan.parts, plan.rejected])
        file_io.write(f"{target}/{plans.PLAN}", plan.to_json())
    return plan


@contextlib.contextmanager
def _local_folder(target: str) -> Iterator[str]:
    """A folder in which files can grow: the target itself, or one of this machine."""
    if not urls.is_remote(target):
        tf.io.gfile.makedirs(target)
        yield target
        return
    folder = f"{urls.scratch_folder(target)}-plan"
    file_io.remove_folder(folder)
    tf.io.gfile.makedirs(folder)
    yield folder
    file_io.remove_folder(folder)


# ---- Streaming


@dataclasses.dataclass
class _Planned:
    """What is known of the data set at the end of the stream."""

    images: list[CocoImage]
    categories: Categories
    rejected: list[Rejection]


class _ImagesComeLater(Exception):
    """Annotations come before images, so it is not known yet to which shard they belong."""


def _stream(job: ShardJob, folder: str) -> tuple["_Parts", _Planned]:
    sources = job.sources
    if len(sources) == 1 and not sources[0].has_image_jsons:
        with contextlib.suppress(_ImagesComeLater):
            return _assign(job, folder, CatalogueBuilder(sources), complete=False)
    return _assign(job, folder, read_images(sources), complete=True)


def _assign(job: ShardJob, folder: str, builder: CatalogueBuilder, complete: bool) -> tuple["_Parts", _Planned]:
    """Streams annotations, and writes each to the part of its image.

    Args:
      job: what to shard.
      folder: for the parts.
      builder: of the catalogue; it is filled if it is not complete yet.
      complete: whether it is.
    """
    parts = _begin(job, folder, builder) if complete else None
    misplaced: list[Rejection] = []
    named = [set[int]() for _ in job.sources] if job.settings.reading.drop_empty_categories else None
    entries = ((number, *entry) for number, source in enumerate(job.sources) for entry in source.stream())
    count = 0
    for source, name, entry in entries:
        if name != "annotations":
            if name == "images" and parts is not None and not complete:
                raise _ImagesComeLater
            if not complete:
                builder.add(source, name, entry)
            continue
        if parts is None:
            if not builder.has_images():
                raise _ImagesComeLater
            parts = _begin(job, folder, builder)
        count += 1
        if named is not None:
            named[source] |= named_category(entry)
        placed = numbered(entry, count, builder.images_of(source))
        if isinstance(placed, Rejection):
            misplaced.append(placed)
        else:
            parts.add(placed)
    parts = parts or _begin(job, folder, builder)
    parts.flush()
    categories = builder.categories(named)  # checks them
    return parts, _Planned(parts.of_images, categories, [*builder.rejected, *misplaced])


def _begin(job: ShardJob, folder: str, builder: CatalogueBuilder) -> "_Parts":
    """Decides how many shards there are and which images they get, once all images are known."""
    images = builder.images()
    num_shards = job.num_shards or default_count(job.image_roots, images, job.settings)
    if num_shards > len(images):
        raise ConfigError(f"num_shards={num_shards} is more than the {len(images)} images; give at most that.")
    return _Parts(folder, images, num_shards)


class _Parts:
    """The files of the shards, which grow while annotations arrive in any order."""

    def __init__(self, folder: str, images: list[CocoImage], num_shards: int):
        self.of_images = images
        """All of them, in order."""
        bounds = [len(images) * shard // num_shards for shard in range(num_shards + 1)]
        self.images = [bounds[shard + 1] - bounds[shard] for shard in range(num_shards)]
        """Number of images of each shard."""
        self._paths = [f"{folder}/{_part_name(shard)}" for shard in range(num_shards)]
        self._sizes, self._crcs = [0] * num_shards, [0] * num_shards
        self._lines: list[list[str]] = [[] for _ in range(num_shards)]
        self._waiting = 0
        self._shard_of: dict[int, int] = {}
        for shard, path in enumerate(self._paths):
            chosen = images[bounds[shard] : bounds[shard + 1]]
            self._shard_of.update(dict.fromkeys((image.id for image in chosen), shard))
            self._write(shard, path, "w", json.dumps([_values(image) for image in chosen]) + "\n")

    def add(self, annotation: dict[str, Any]) -> None:
        """Takes an annotation of one of the images."""
        line = json.dumps(annotation) + "\n"
        self._lines[self._shard_of[annotation["image_id"]]].append(line)
        self._waiting += len(line)
        if self._waiting > _WAITING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what has arrived."""
        for shard, (path, lines) in enumerate(zip(self._paths, self._lines, strict=True)):
            if lines:
                self._write(shard, path, "a", "".join(lines))
                lines.clear()
        self._waiting = 0

    def files(self) -> list[ShardFile]:
        """The files as they are now."""
        facts = zip(self.images, self._sizes, self._crcs, strict=True)
        return [ShardFile(_part_name(shard), n, size, f"{crc:08x}") for shard, (n, size, crc) in enumerate(facts)]

    def _write(self, shard: int, path: str, mode: str, text: str) -> None:
        data = text.encode()
        with tf.io.gfile.GFile(path, f"{mode}b") as file:
            file.write(data)
        self._sizes[shard] += len(data)
        self._crcs[shard] = google_crc32c.extend(self._crcs[shard], data)


def _values(image: CocoImage) -> list[Any]:
    return [getattr(image, field.name) for field in dataclasses.fields(image)]


def _part_name(shard: int) -> str:
    return f"{shard:05d}.part.jsonl"


# ---- Describing


def _described(job: ShardJob, parts: list[ShardFile], planned: _Planned, rejected: bytes) -> Plan:
    settings = job.settings
    if settings.pixel_range is None:
        settings = dataclasses.replace(settings, pixel_range=find_range(job.image_roots, planned.images))
    return Plan(
        fingerprint=fingerprint(settings, checksum_of(job), len(parts)),
        categories=planned.categories.entries,
        category_ids=[{str(number): new for number, new in ids.items()} for ids in planned.categories.ids],
        frequencies={str(number): kind for number, kind in planned.categories.frequencies.items()},
        parts=parts,
        rejected=ShardFile(plans.REJECTED, 0, len(rejected), crc32c(rejected)),
        versions=plans.versions(),
        output=job.output,
    )


def _upload(folder: str, target: str, files: list[ShardFile]) -> None:
    with concurrent.futures.ThreadPoolExecutor(_UPLOADS_AT_A_TIME) as pool:
        list(pool.map(lambda file: file_io.upload(f"{folder}/{file.name}", f"{target}/{file.name}"), files))
