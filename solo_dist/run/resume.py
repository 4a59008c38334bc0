"""Where a run starts: its own checkpoint, given weights, a pretrained backbone, or random numbers.

In this order of precedence:
  1. the run's own checkpoint, by --resume=auto, or the one that --resume=PATH names;
  2. model.weights: a whole model, imported or from another run;
  3. model.backbone.weights: a pretrained backbone, the rest random;
  4. random, from the recipe's seed.
"""

import dataclasses
import logging
import os

from solo_dist.config import Config
from solo_dist.distributed import exit_codes
from solo_dist.errors import ConfigError
from solo_dist.run.checkpoint import Checkpoint, CheckpointStore, load_arrays
from solo_dist.storage import file_io

log = logging.getLogger(__name__)


def find_resume_point(store: CheckpointStore, workdir: str, resume: str, is_chief: bool) -> Checkpoint | None:
    """The checkpoint to go on from, or None for a new run.

    A later start of the job that was given `never` or a checkpoint goes on from what it has saved itself.

    Args:
      store: the run's checkpoints.
      workdir: for messages.
      resume: auto, never, or the folder of a checkpoint.
      is_chief: whether this worker is the one that decides whether a run may be there.

    Raises:
      ConfigError: where going on that way would mix two runs.
    """
    if resume == "auto":
        return store.restore_latest()
    existing = store.steps()
    newest = store.newest_metadata()
    if resume == "never":
        job = exit_codes.job_id(os.environ)
        if existing and is_chief and (job is None or newest.get("job") != job):
            raise ConfigError(
                f"--resume=never, but {workdir} holds a run at step {existing[-1]}; "
                "give another --workdir, or remove this one."
            )
        return store.restore_latest()
    resume = resume.rstrip("/")
    if newest.get("resumed_from") == resume:
        return store.restore_latest()
    arrays, metadata = load_arrays(resume)
    if "step" not in metadata or "images" not in metadata:
        raise ConfigError(
            f"--resume={resume} is not a checkpoint of a run; to start from its weights, set model.weights."
        )
    if existing and existing[-1] > metadata["step"]:
        raise ConfigError(
            f"--resume={resume} is step {metadata['step']}, but {workdir} already holds step {existing[-1]}; "
            "give another --workdir."
        )
    return Checkpoint(metadata["step"], arrays, metadata)


def check_same_run(config: Config, workdir: str) -> None:
    """Raises ConfigError where the workdir holds a run of another recipe; says which options have changed."""
    path = f"{workdir}/config.json"
    if not file_io.exists(path):
        return
    before = Config.from_json(file_io.read(path).decode())
    changed = changed_options(before, config)
    other_run = [option for option in changed if option == "name" or option.startswith("model.")]
    if other_run:
        option = other_run[0]
        raise ConfigError(
            f"{workdir} holds a run with {option}={changed[option][0]!r}, now it is {changed[option][1]!r}; "
            "give another --workdir, or the recipe of that run."
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
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": _plain(value)}
    return flat


def _plain(value: object) -> object:
    """Tuples and lists alike, since a recipe read from JSON has only one of them."""
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value
