"""Annotations and images -> a folder of shards, on one machine or many, resumable at any moment.

    shard_coco(job)                     # on one machine: the three steps in one
    plan_shards(job)                    # or: (1) annotations are streamed: what belongs to a shard goes to a file of it
    make_task(job, index, count)        # (2) each task makes its shards one by one; any number of tasks, on any machine
    finish_shards(job, count)           # (3) all shards are verified; the side files and, last, the manifest follow

The note of a shard in `.progress/` is written after the shard itself, so a task can be killed at any moment and go on
anywhere: shards whose note has the right checksums are kept. The bytes depend on data and settings alone, not on
processes, tasks or interruptions.

Images that an earlier run could not use are read again. If one of them has been repaired, its shard is made again; if
the folder was already finished, the whole folder is made again.

TensorFlow is not initialised in the calling process, which may want to configure it first.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import tensorflow as tf
import tqdm

from solo_dist.data import schema
from solo_dist.data.schema import Manifest, ShardError
from solo_dist.data.sharding.claims import claimed
from solo_dist.data.sharding.copy import is_intact
from solo_dist.data.sharding.finish import finish
from solo_dist.data.sharding.notes import ShardNote, shard_task, valid_notes
from solo_dist.data.sharding.plan import Plan, plan_for, progress_folder, refuse
from solo_dist.data.sharding.planning import make_plan
from solo_dist.data.sharding.resume import check_folder, finished_manifest, remove_partial_files, reopened
from solo_dist.data.sharding.shard_job import (
    ShardJob,
    check,
    check_with_annotations,
    checksum_of,
    completed,
    fingerprint,
)
from solo_dist.data.sharding.strict import fail_on, fail_on_reasons
from solo_dist.data.sharding.worker import make_shards
from solo_dist.errors import ConfigError
from solo_dist.storage import file_io, urls


def shard_coco(job: ShardJob, processes: int = 1, progress: bool = True) -> Manifest:
    """Makes the folder of shards, or finishes one that an interrupted run left behind.

    Args:
      job: what to do.
      processes: worker processes; 0: in this process.
      progress: whether to show a bar.
    Returns:
      The manifest.
    Raises:
      CocoError: annotations are not usable. TarError: a tar file is not usable, or has changed. ConfigError:
        impossible settings. ShardError: no usable image, a rejection in strict mode, a folder with other shards in it,
        or a file that cannot be written. LockError: another process is at work on the folder. StoreError: a store
        cannot be read or written.
    """
    check_with_annotations(job)
    manifest = finished_manifest(job)
    if manifest is None or file_io.names(progress_folder(job.output)):
        check_folder(job)
        with claimed(job.output):
            manifest = finished_manifest(job)
            if manifest is None:
                plan = _planned(job)
                notes = _made(plan, job, 0, 1, processes, progress)
                # What this machine has written to its own disk is not read again.
                manifest = _finished(plan, job, {} if urls.is_remote(job.output) else notes, 1)
        file_io.remove_folder(progress_folder(job.output))
    if job.strict:
        fail_on_reasons(manifest)
    return manifest


def plan_shards(job: ShardJob) -> Plan | None:
    """The first step: decides what is in each shard. A plan that is there already, and intact, is kept.

    Returns:
      The plan; None: the folder is finished.
    Raises:
      As `shard_coco`.
    """
    check_with_annotations(job)
    if finished_manifest(job) is not None:
        return None
    check_folder(job)
    with claimed(job.output):
        return _planned(job)


def make_task(job: ShardJob, index: int, count: int, processes: int = 1, progress: bool = True) -> int:
    """The second step: makes the shards index, index + count, and so on, except those that are finished.

    Args:
      job: as it was planned; its annotations are not read.
      index: number of this task, from 0.
      count: number of tasks.
      processes: worker processes; 0: in this process.
      progress: whether to show a bar.
    Returns:
      The number of shards of this task; 0: the folder is finished.
    Raises:
      ConfigError: there is no such task. Otherwise as `shard_coco`.
    """
    if not 0 <= index < count:
        raise ConfigError(
            f"--task_index={index} must be 0 to {count - 1}, as --task_count={count}: tasks are numbered from 0, and "
            "the count is that of all tasks, also if only some of them run again."
        )
    check(job)
    plan = _existing_plan(job)
    if plan is None:
        return 0
    with claimed(job.output, index, count):
        return len(_made(plan, job, index, count, processes, progress))


def finish_shards(job: ShardJob, count: int = 1) -> Manifest:
    """The last step: verifies all shards and writes the manifest.

    Args:
      job: as it was planned; its annotations are not read.
      count: number of tasks, to name those that have to run again.
    Raises:
      ShardError: shards are not made yet, or damaged. Otherwise as `shard_coco`.
    """
    check(job)
    plan = _existing_plan(job)
    if plan is None:
        return schema.load_manifest(job.output)
    with claimed(job.output):
        manifest = _finished(plan, job, {}, count)
    file_io.remove_folder(progress_folder(job.output))
    return manifest


# ---- The steps, for a process that holds the claim


def _planned(job: ShardJob) -> Plan:
    with _readable_errors(job.output):
        job = reopened(job)
        remove_partial_files(job.output)
        plan = plan_for(job)
        if plan is not None:
            job, _ = completed(job, plan.fingerprint)
            if fingerprint(job.settings, checksum_of(job), job.num_shards) != plan.fingerprint:
                refuse(job.output)
        if plan is None or not _is_intact(plan):
            plan = make_plan(job)
    if job.strict:
        fail_on(plan.read_rejected())
    return plan


def _is_intact(plan: Plan) -> bool:
    return is_intact(progress_folder(plan.output), [*plan.parts, plan.rejected])


def _made(plan: Plan, job: ShardJob, index: int, count: int, processes: int, progress: bool) -> dict[int, ShardNote]:
    """The notes of all shards of a task, by shard."""
    shards, scratch = range(index, plan.num_shards, count), plan.scratch(f"{index}-of-{count}")
    settings = dataclasses.replace(job.settings, pixel_range=plan.pixel_range)
    with _readable_errors(job.output):
        file_io.remove_folder(scratch)  # of a task that was killed
        notes = valid_notes(plan, shards, job.image_roots, settings.reading)
        if job.strict:
            fail_on(rejection for note in notes.values() for rejection in note.rejected)
        todo = [shard for shard in shards if shard not in notes]
        tasks = [shard_task(plan, shard, job.image_roots, scratch) for shard in todo]
        images = {shard: plan.parts[shard].num_records for shard in shards}
        with tqdm.tqdm(
            desc="sharding",
            total=sum(images.values()),
            initial=sum(images[shard] for shard in notes),
            unit=" images",
            disable=not progress,
            mininterval=1.0,
        ) as bar:
            for number, note in make_shards(tasks, settings, plan.classes, processes, bar.update):
                notes[todo[number]] = note
                if job.strict:
                    fail_on(note.rejected)
        file_io.remove_folder(scratch)
    return notes


def _finished(plan: Plan, job: ShardJob, known: dict[int, ShardNote], count: int) -> Manifest:
    """Writes the manifest if all shards are made; those of `known` need not be verified."""
    with _readable_errors(job.output):
        unknown = [shard for shard in range(plan.num_shards) if shard not in known]
        notes = known | valid_notes(plan, unknown, job.image_roots, job.settings.reading)
        missing = [shard for shard in range(plan.num_shards) if shard not in notes]
        if missing:
            raise ShardError(_unfinished(plan, missing, count))
        if job.strict:
            fail_on(rejection for note in notes.values() for rejection in note.rejected)
        remove_partial_files(job.output)
        scratch = plan.scratch("finish")
        try:
            return finish(plan, [notes[shard] for shard in range(plan.num_shards)], job, scratch)
        finally:
            file_io.remove_folder(scratch)


def _unfinished(plan: Plan, missing: list[int], count: int) -> str:
    tasks = sorted({shard % count for shard in missing})
    again = (
        "Run the same command without a step, which makes them"
        if count == 1
        else f"Run these tasks again, then --finish: --task_count={count} --task_index={','.join(map(str, tasks))}"
    )
    return (
        f"{plan.output} is not complete: {len(missing)} of its {plan.num_shards} shards are not made or are damaged, "
        f"the first is {plan.shard_name(missing[0])}. {again}."
    )


def _existing_plan(job: ShardJob) -> Plan | None:
    """The plan; None: the folder is finished. Raises ShardError if there is neither."""
    plan = plan_for(job)
    if plan is None and not schema.is_complete(job.output):
        raise ShardError(f"There is no plan in {job.output} yet; first run the same command with --plan.")
    return plan


@contextlib.contextmanager
def _readable_errors(output: str) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        raise ShardError(
            f"Making shards in {output} failed: {error.message}. Correct the cause (space, permissions), then run "
            "the same command; finished shards are kept."
        ) from error
