"""Which checkpoint a run resumes from: --resume=auto, never or PATH.

What a run starts from if it resumes from none is in training/start.py.
"""

import dataclasses
import logging
import os
from typing import NamedTuple

from solo_dist.config import Config
from solo_dist.distributed import exit_codes
from solo_dist.errors import ConfigError
from solo_dist.run.checkpoint import Checkpoint, load_checkpoint
from solo_dist.run.checkpoint_store import CheckpointStore
from solo_dist.run.directory import RunDirectory

log = logging.getLogger(__name__)


class ResumePoint(NamedTuple):
    """Where a run continues."""

    checkpoint: Checkpoint | None
    """None for a new run."""
    folder: str
    """Where the checkpoint was read."""
    resumed_from: str
    """The PATH of --resume=PATH with which this run was first started; empty without one."""
    unpublished: bool
    """Whether this machine has curves up to the checkpoint that an earlier process could not upload."""


def find_resume_point(directory: RunDirectory, store: CheckpointStore, resume: str, is_chief: bool) -> ResumePoint:
    """Decides where a run continues.

    A job is started again with the same flags after a failure. If it was given `never` or PATH, its later starts
    continue from the checkpoints that the first start has saved.

    Args:
      directory: the run directory.
      store: its checkpoints.
      resume: auto, never, or the folder of a checkpoint.
      is_chief: whether this is the worker that refuses to mix two runs.

    Raises:
      ConfigError: continuing that way would mix two runs.
      CheckpointError: the checkpoint is damaged, or all are.
    """
    if resume in ("auto", "never"):
        if resume == "never" and is_chief:
            _check_no_other_run(directory, store)
        return _latest(store)
    resume = resume.rstrip("/")
    newest = store.newest_metadata()
    if newest and newest.resumed_from == resume:
        return _latest(store)
    checkpoint = _load_named(directory, store, resume)
    return ResumePoint(checkpoint, resume, resume, unpublished=directory.is_local_copy(resume))


def _latest(store: CheckpointStore) -> ResumePoint:
    """The newest checkpoint of the run itself, if it has one."""
    checkpoint = store.load_latest()
    if checkpoint is None:
        return ResumePoint(None, "", "", unpublished=False)
    metadata = checkpoint.metadata
    return ResumePoint(checkpoint, store.path(metadata.step), metadata.resumed_from, unpublished=False)


def _check_no_other_run(directory: RunDirectory, store: CheckpointStore) -> None:
    """Raises ConfigError if the run directory holds checkpoints of another job than this one."""
    existing, newest = store.steps(), store.newest_metadata()
    job = exit_codes.job_id(os.environ)
    if existing and (job is None or newest is None or newest.job != job):
        raise ConfigError(
            f"--resume=never, but {directory.path} holds a run at step {existing[-1]}; "
            "give another --workdir, or remove this one."
        )


def _load_named(directory: RunDirectory, store: CheckpointStore, resume: str) -> Checkpoint:
    """The checkpoint of --resume=PATH. Raises ConfigError if it is of no run, or the run is further already."""
    checkpoint, existing = load_checkpoint(resume), store.steps()
    if checkpoint.metadata.images is None:
        raise ConfigError(
            f"--resume={resume} is not a checkpoint of a run; to start from its weights, set model.weights."
        )
    if existing and existing[-1] > checkpoint.metadata.step:
        raise ConfigError(
            f"--resume={resume} is step {checkpoint.metadata.step}, but {directory.path} already holds step "
            f"{existing[-1]}; give another --workdir."
        )
    return checkpoint


def check_same_run(config: Config, directory: RunDirectory) -> None:
    """Raises ConfigError if the directory holds a run with another model or name; warns of other changed options."""
    before = directory.load_config()
    if before is None:
        return
    changed = changed_options(before, config)
    other_run = [option for option in changed if option == "name" or option.startswith("model.")]
    if other_run:
        option = other_run[0]
        raise ConfigError(
            f"{directory.path} holds a run with {option}={changed[option][0]!r}, now it is {changed[option][1]!r}; "
            "give another --workdir, or the config of that run."
        )
    for option, (old, new) in changed.items():
        log.warning("changed since this run was started: %s=%r was %r", option, new, old)


def changed_options(before: Config, now: Config) -> dict[str, tuple[object, object]]:
    """Options whose values differ, with the old and the new value."""
    old, new = (_flatten(dataclasses.asdict(config)) for config in (before, now))
    return {option: (old[option], new[option]) for option in new if old[option] != new[option]}


def _flatten(values: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
