"""COCO json and images -> a folder of shards, in parallel processes, resumable at any moment.

Order of events: (1) the json is streamed twice, images first, then annotations, which are spooled to one small file a
shard; (2) worker processes make a shard each and commit it with a note in `.progress/`, written after the shard itself;
(3) the side files and, last, the manifest are written. If a run was killed, the next one keeps the shards whose note
has the right checksum. The bytes depend on data and settings alone, not on processes or interruptions.

Images that an earlier run could not use are read again. If one of them has been repaired, its shard is made again; if
the folder was already finished, the whole folder is made again.

If the output is in an object store, the shards are made in a temporary folder, which is then copied there.

TensorFlow is not initialised in the calling process, which may want to configure it first.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping

import tensorflow as tf
import tqdm

from solo_dist.config import check_canvas
from solo_dist.data import schema
from solo_dist.data.schema import Manifest, ShardError
from solo_dist.data.sharding import coco
from solo_dist.data.sharding.coco import Catalogue, Reading, Rejection
from solo_dist.data.sharding.copy import copy_shards
from solo_dist.data.sharding.finish import finish
from solo_dist.data.sharding.images import find_range
from solo_dist.data.sharding.reasons import counted
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.data.sharding.resume import discard_manifest, fingerprint_file, finished_manifest, prepare_folder
from solo_dist.data.sharding.worker import ShardNote, ShardTask, make_shards, valid_note
from solo_dist.errors import ConfigError
from solo_dist.storage import file_io, urls
from solo_dist.storage.atomic import checksum
from solo_dist.storage.host_lock import exclusive

BY_DESIGN = ("crowd", "ignore")
"""Reasons that are no mistake in the data: such annotations are kept for evaluation, and strict mode accepts them."""
_IMAGES_A_SHARD = 64
_MOST_SHARDS = 256
_SPOOLED_AT_A_TIME = 20_000
_SHOWN_REASONS = 3


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """What to shard, and where to."""

    annotations: str
    images: str
    output: str
    settings: ShardSettings
    num_shards: int = 0
    """0: one for every 64 images, at most 256."""
    strict: bool = False
    """Fail at the first image or annotation that is rejected for a mistake in the data."""


def shard_coco(job: ShardJob, processes: int = 1, progress: bool = True) -> Manifest:
    """Makes the folder of shards, or finishes one that an interrupted run left behind.

    Args:
      job: what to do.
      processes: worker processes; 0: in this process.
      progress: whether to show a bar.
    Returns:
      The manifest.
    Raises:
      coco.CocoError: the json is not usable. ConfigError: impossible settings. ShardError: no usable image, a
        rejection in strict mode, a folder with other shards in it, or a file that cannot be written.
    """
    _check(job)
    catalogue = coco.read_catalogue(job.annotations, job.settings.reading.drop_empty_categories)
    num_shards = job.num_shards or min(-(-len(catalogue.images) // _IMAGES_A_SHARD), _MOST_SHARDS)
    if num_shards > len(catalogue.images):
        raise ConfigError(
            f"num_shards={num_shards} is more than the {len(catalogue.images)} images; give at most that."
        )
    if job.strict:
        _fail_on(catalogue.rejected)
    if job.settings.pixel_range is None:
        found = find_range(job.images, catalogue.images)
        job = dataclasses.replace(job, settings=dataclasses.replace(job.settings, pixel_range=found))
    fingerprint = _fingerprint(job, num_shards)
    manifest = finished_manifest(job.output, fingerprint, job.images, catalogue, job.settings.reading, job.strict)
    if manifest is None or file_io.names(f"{job.output}/{schema.PROGRESS}"):
        prepare_folder(job.output, fingerprint)
        with exclusive_writer(job.output) as local:
            manifest = finished_manifest(
                job.output, fingerprint, job.images, catalogue, job.settings.reading, job.strict
            )
            if manifest is None:
                discard_manifest(job.output)
                make = _shard if local == job.output else _shard_and_copy
                manifest = make(job, catalogue, num_shards, fingerprint, processes, progress)
            if local != job.output:
                file_io.remove_folder(local)
            file_io.remove_folder(f"{job.output}/{schema.PROGRESS}")
    if job.strict:
        _fail_on_reasons(manifest)
    return manifest


@contextlib.contextmanager
def exclusive_writer(output: str) -> Iterator[str]:
    """Locks and yields the local folder in which the shards are made; two processes would delete each other's files."""
    local = urls.scratch_folder(output) if urls.is_remote(output) else output
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(f"{local}/{schema.PROGRESS}/lock", wait=False))
        except BlockingIOError:
            raise ShardError(f"Another process is making {output}; wait for it, or stop it.") from None
        except OSError as error:
            raise ShardError(f"Cannot write to {local}: {error.strerror}.") from error
        yield local


def _shard_and_copy(
    job: ShardJob, catalogue: Catalogue, num_shards: int, fingerprint: str, processes: int, progress: bool
) -> Manifest:
    """Makes the shards in a local folder for these data and settings, then copies them to an object store."""
    scratch = f"{urls.scratch_folder(job.output)}/{schema.crc32c(fingerprint.encode())}"
    manifest = finished_manifest(scratch, fingerprint, job.images, catalogue, job.settings.reading, job.strict)
    if manifest is None:
        discard_manifest(scratch)
        prepare_folder(scratch, fingerprint)
        local = dataclasses.replace(job, output=scratch)
        _shard(local, catalogue, num_shards, fingerprint, processes, progress)
    elif job.strict:
        _fail_on_reasons(manifest)
    return copy_shards(scratch, job.output, progress)


def _shard(
    job: ShardJob, catalogue: Catalogue, num_shards: int, fingerprint: str, processes: int, progress: bool
) -> Manifest:
    """Makes the shards in a local folder, except those that an earlier run finished."""
    plan = _Plan(job, catalogue, num_shards)
    try:
        rejected = [*catalogue.rejected, *_spool_annotations(plan)]
        if job.strict:
            _fail_on(rejected)
        notes = _make_shards(plan, processes, progress)
        tasks = [plan.task(shard) for shard in range(num_shards)]
        manifest = finish(job.output, job.images, job.settings, catalogue, tasks, notes, rejected, fingerprint)
    except tf.errors.OpError as error:
        raise ShardError(
            f"Making shards in {job.output} failed: {error.message}. Correct the cause (space, permissions), then run "
            "the same command; finished shards are kept."
        ) from error
    if not manifest.num_instances:
        _leave_nothing(job.output, tasks)
        raise ShardError(_nothing_left(job.annotations, manifest.rejected))
    return manifest


def _leave_nothing(output: str, tasks: list[ShardTask]) -> None:
    """Makes room for another try with other flags; what was rejected stays, for people."""
    for name in (schema.MANIFEST, schema.RECORDS, schema.ANNOTATIONS):
        file_io.remove(f"{output}/{name}")
    for task in tasks:
        file_io.remove(task.shard)
    file_io.remove(fingerprint_file(output))


def _nothing_left(annotations: str, rejected: Mapping[str, int]) -> str:
    """What the rejected have in common."""
    if not rejected:
        return f"{annotations} has no annotations, so there is nothing to train on."
    lines = counted(rejected, _SHOWN_REASONS)
    return f"No instance of {annotations} is left to train on: {'; '.join(lines)}."


# ---- Planning


@dataclasses.dataclass(frozen=True)
class _Plan:
    job: ShardJob
    catalogue: Catalogue
    num_shards: int

    def task(self, shard: int) -> ShardTask:
        """What to make a shard of, and the paths of its parts, which are removed at the end except the shard."""
        total = len(self.catalogue.images)
        first, last = total * shard // self.num_shards, total * (shard + 1) // self.num_shards
        passing = f"{self.job.output}/{schema.PROGRESS}/{shard:05d}"
        return ShardTask(
            images=self.job.images,
            first=first,
            entries=self.catalogue.images[first:last],
            spool=f"{passing}.spool.jsonl",
            shard=f"{self.job.output}/shard-{shard:05d}-of-{self.num_shards:05d}.tfrecord",
            annotations=f"{passing}.annotations.gz",
            note=f"{passing}.note.json",
        )


def _check(job: ShardJob) -> None:
    settings = job.settings
    settings.grid.validate()
    check_canvas("canvas", settings.canvas)
    if job.num_shards < 0 or job.num_shards > 9999:
        raise ConfigError(f"num_shards={job.num_shards} must be 1 to 9999, or 0 to choose by the number of images.")
    if settings.augmented_copies < 1:
        raise ConfigError(f"augmented_copies={settings.augmented_copies} must be at least 1.")
    if settings.augmented_copies > 1 and settings.keep_original:
        raise ConfigError(
            "keep_original keeps whole images, so augmented copies cannot be drawn from them; give one of the two."
        )
    if settings.augmented_copies > 1 and not settings.augment.changes_geometry:
        raise ConfigError(
            "augmented_copies above 1 need a recipe with data.augment.scale, crop or short_sides to draw them by."
        )
    if file_io.exists(job.images):
        raise ConfigError(f"--images={job.images} is a file; give the folder that file_name starts from.")
    # isdir says False, too, if a store refuses or does not answer; file_io.names then raises the reason.
    if not tf.io.gfile.isdir(job.images) and not file_io.names(job.images):
        raise ConfigError(f"The folder of images {job.images!r} does not exist.")


def _fingerprint(job: ShardJob, num_shards: int) -> str:
    """Identifies data and settings, so that shards of another kind are never mixed in."""
    settings = dataclasses.asdict(job.settings)
    if job.settings.augmented_copies == 1:
        del settings["augment"], settings["seed"]
    else:
        for option in ("mosaic", "mosaic_scale", "paste", "off_for_last"):  # not of copies
            del settings["augment"][option]
    if job.settings.reading == Reading():
        del settings["reading"]
    if job.settings.pixel_range is None:
        del settings["pixel_range"]
    values = {"schema": schema.SCHEMA_VERSION, "annotations": checksum(job.annotations), "num_shards": num_shards}
    return json.dumps(values | settings, sort_keys=True)


def _spool_annotations(plan: _Plan) -> list[Rejection]:
    """Writes each shard's annotations to a file of its own; returns what cannot be assigned to an image."""
    tasks = [plan.task(shard) for shard in range(plan.num_shards)]
    images = {image.id: image for image in plan.catalogue.images}
    task_of = {image.id: task for task in tasks for image in task.entries}
    waiting: dict[str, list[str]] = {task.spool: [] for task in tasks}
    for path in waiting:
        with tf.io.gfile.GFile(path, "w") as file:
            file.write("")  # without a write, GFile creates no file

    def flush() -> None:
        for path, lines in waiting.items():
            with tf.io.gfile.GFile(path, "a") as file:
                file.write("".join(lines))
            lines.clear()

    rejected = []
    for number, entry in enumerate(coco.read_annotations(plan.job.annotations, images)):
        if isinstance(entry, Rejection):
            rejected.append(entry)
        else:
            waiting[task_of[entry["image_id"]].spool].append(json.dumps(entry) + "\n")
        if number % _SPOOLED_AT_A_TIME == _SPOOLED_AT_A_TIME - 1:
            flush()
    flush()
    return rejected


def _make_shards(plan: _Plan, processes: int, progress: bool) -> list[ShardNote]:
    tasks = [plan.task(shard) for shard in range(plan.num_shards)]
    notes = {shard: note for shard, task in enumerate(tasks) if (note := valid_note(task, plan.job.settings.reading))}
    if plan.job.strict:
        for note in notes.values():
            _fail_on(note.rejected)
    todo = [shard for shard in range(plan.num_shards) if shard not in notes]
    done = sum(len(tasks[shard].entries) for shard in notes)
    total = len(plan.catalogue.images)
    with tqdm.tqdm(
        desc="sharding", total=total, initial=done, unit=" images", disable=not progress, mininterval=1.0
    ) as bar:
        left = [tasks[shard] for shard in todo]
        for number, note in make_shards(left, plan.job.settings, plan.catalogue.categories, processes, bar.update):
            notes[todo[number]] = note
            if plan.job.strict:
                _fail_on(note.rejected)
    return [notes[shard] for shard in range(plan.num_shards)]


def _fail_on(rejected: list[Rejection]) -> None:
    for rejection in rejected:
        if rejection.reason not in BY_DESIGN:
            raise ShardError(
                f"--strict: {rejection.kind} {rejection.id} ({rejection.file or 'no image'}): {rejection.reason}"
                f"{rejection.detail and f' ({rejection.detail})'}. Correct the data, or run without --strict."
            )


def _fail_on_reasons(manifest: Manifest) -> None:
    for reason, count in manifest.rejected.items():
        if reason not in BY_DESIGN:
            raise ShardError(
                f"--strict: {manifest.folder} was made without it and leaves out {count} for this reason: {reason} "
                f"(see its {schema.REJECTED}). Correct the data, or run without --strict."
            )
