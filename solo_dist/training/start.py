"""Where a run starts.

In order of precedence:
1. --resume=auto, the default: the newest checkpoint of the run directory that is not damaged. --resume=PATH: that
   checkpoint, at the first start of a job; its later starts take the run's own newest one. --resume=never: none, and
   the run directory of another job is refused; later starts of the same job take the newest one;
2. model.weights: a whole model, imported or of another run;
3. model.backbone.weights: a pretrained backbone, the rest random;
4. random numbers from the config's seed.

A checkpoint holds weights, optimizer, and the position in the input. With weights alone a run begins at step 0.
"""

import dataclasses
import logging
import os
from typing import NamedTuple

from solo_dist.config import Config, flat_options
from solo_dist.data.input.sampler import Sampler
from solo_dist.distributed.job import job_id, report_progress
from solo_dist.errors import ConfigError
from solo_dist.run.checkpoint import Checkpoint, load_checkpoint
from solo_dist.run.checkpoint_store import CheckpointStore
from solo_dist.run.directory import RunDirectory
from solo_dist.training.build import RunParts
from solo_dist.weights.load import load_backbone_weights, load_model_weights

log = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where a run starts; the defaults describe a new run."""

    step: int = 0
    """Finished steps."""
    images: int = 0
    """Images seen."""
    total_steps: int = 0
    """See `CheckpointMetadata`."""
    resumed_from: str = ""
    """The PATH of --resume=PATH with which this run was first started; empty without one."""
    unpublished: bool = False
    """Whether this machine has curves up to the checkpoint that an earlier process could not upload."""


def start_run(
    config: Config, parts: RunParts, directory: RunDirectory, store: CheckpointStore, resume: str, is_chief: bool
) -> Start:
    """Fills the variables of a run, whose weights are random so far. Writes nothing into the run directory.

    Args:
      config: the config of the run.
      parts: what was built from it.
      directory: the run directory.
      store: its checkpoints.
      resume: auto, never, or the folder of a checkpoint.
      is_chief: whether this is the worker that refuses to mix two runs.

    Raises:
      ConfigError, DataError: checkpoint or weights do not fit the model, the data or the run directory.
    """
    point = find_resume_point(directory, store, resume, is_chief)
    if point.checkpoint is not None:
        return _restore(point.checkpoint, point, config, parts)
    if config.model.weights:
        names = [category["name"] for category in parts.manifest.categories]
        load_model_weights(parts.model, config.model.weights, names)
        log.info("weights: %s", config.model.weights)
    elif match := load_backbone_weights(parts.model):
        log.info("weights: backbone from %s, the rest random", match.source)
    else:
        log.info("weights: random, seed %d", config.seed)
    parts.optimizer.restart_averages()
    return Start()


def _restore(checkpoint: Checkpoint, point: "ResumePoint", config: Config, parts: RunParts) -> Start:
    step, images = checkpoint.metadata.step, checkpoint.metadata.images or 0
    parts.state.restore(checkpoint.arrays, point.folder)
    if checkpoint.metadata.categories != parts.manifest.categories:
        raise ConfigError(f"The categories of {config.data.train} are not those of the checkpoint {point.folder}.")
    # With a launcher on each machine, only the launcher of the chief has heard of the checkpoints.
    report_progress(step)
    log.info("weights: checkpoint of step %d in %s", step, point.folder.rpartition("/")[0])
    epoch, image = divmod(images, Sampler(config, parts.manifest, training=True).epoch_length)
    log.info("input: continues at image %d of epoch %d; no image is repeated or left out", image + 1, epoch + 1)
    return Start(step, images, checkpoint.metadata.total_steps, point.resumed_from, point.unpublished)


class ResumePoint(NamedTuple):
    """The checkpoint that a run continues from, if there is one."""

    checkpoint: Checkpoint | None
    """None for a new run."""
    folder: str
    """Its folder."""
    resumed_from: str
    """See `Start`."""
    unpublished: bool
    """See `Start`."""


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
    job = job_id(os.environ)
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
    old, new = (flat_options(dataclasses.asdict(config)) for config in (before, now))
    return {option: (old[option], new[option]) for option in new if old[option] != new[option]}
