"""The files of a run directory, read for a report.

    run = read_run("runs/mine")
    run.train[-1]["loss/total"], run.evaluation.results, run.missing

No file is required: `run.missing` says in words which are missing or damaged.
"""

import dataclasses
import json
from typing import Any

import tensorflow as tf

from solo_dist.config import flat_options
from solo_dist.errors import ConfigError
from solo_dist.run.directory import (
    CATEGORY_METRICS_FILE,
    EVALUATION_METRICS_FILE,
    IMAGE_IDS_FILE,
    RESULTS_FILE,
    RunDirectory,
)
from solo_dist.storage import file_io


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Files of one folder eval/step_N."""

    folder: str
    step: int
    metrics: dict[str, float]
    results: list[dict[str, Any]]
    image_ids: list[int] | None
    """The images that were evaluated; None in runs of older versions, which do not say."""
    category_metrics: dict[str, Any] | None
    """Metrics of each category by its id, as text, and the checksum of the annotations; None as above."""


@dataclasses.dataclass
class RunFiles:
    """The contents of those files of a run that can be read."""

    folder: str
    config: dict[str, Any]
    """config.json as it is; empty if there is none. Not a Config, so that other versions' recipes can be read."""
    environment: dict[str, Any]
    train: list[dict[str, Any]]
    """Lines of metrics.jsonl with split "train", by step."""
    validation: list[dict[str, Any]]
    evaluation: Evaluation | None
    missing: list[str]
    """Sentences on what is not there or could not be read."""

    def option(self, name: str, default: Any = None) -> Any:
        """A field of the recipe, such as "train.global_batch"."""
        value: Any = self.config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return default if value is None else value

    @property
    def options(self) -> dict[str, Any]:
        """All fields of the recipe by full name."""
        return flat_options(self.config)

    @property
    def name(self) -> str:
        """The last part of the folder's path, or the part before if that is "run", as in every folder of quickstart."""
        *before, last = self.folder.rstrip("/").split("/")
        return before[-1] if last == "run" and before else last


def read_run(folder: str, step: int | None = None) -> RunFiles:
    """Reads a run directory, a path or URL, and its newest evaluation or that of a step.

    Raises:
      ConfigError: nothing of a run is there, or no evaluation at the given step.
      StoreError: the store cannot be read.
    """
    directory = RunDirectory(folder)
    folder = directory.path
    missing: list[str] = []
    config = _read_json(directory.config_file, dict, missing) or {}
    environment = _read_json(directory.environment_file, dict, missing) or {}
    lines = _read_lines(directory.step_metrics_file, missing)
    steps = directory.evaluated_steps()
    if not (config or steps or any(lines.values())):
        raise ConfigError(f"There is no run in {folder}; give the --workdir of a training run.")
    if step is not None and step not in steps:
        known = ", ".join(map(str, steps)) or "none"
        raise ConfigError(f"{folder} has no evaluation at --step={step}; it has: {known}.")
    run = RunFiles(folder, config, environment, lines["train"], lines["validation"], None, missing)
    if steps:
        run.evaluation = _read_evaluation(directory, steps[-1] if step is None else step, missing)
    else:
        missing.append(
            "The run has not been evaluated (it has no folder eval/step_N), so only its training curves are shown. "
            f"Run: solo-dist evaluate --workdir={folder}"
        )
    return run


def _read_evaluation(directory: RunDirectory, step: int, missing: list[str]) -> Evaluation | None:
    folder = directory.evaluation(step)
    results = _read_json(f"{folder}/{RESULTS_FILE}", list, missing)
    if results is None:
        return None
    metrics = _read_json(f"{folder}/{EVALUATION_METRICS_FILE}", dict, missing) or {}
    # Older versions did not write these two.
    optional = ((f"{folder}/{IMAGE_IDS_FILE}", list), (f"{folder}/{CATEGORY_METRICS_FILE}", dict))
    found = [_read_json(path, kind, missing) if file_io.exists(path) else None for path, kind in optional]
    return Evaluation(folder, step, metrics, results, *found)


def _read_json(path: str, kind: type, missing: list[str]) -> Any:
    """The content of a file, or None, with a note, if it is missing or not of this kind."""
    try:
        value = json.loads(file_io.read(path))
    except tf.errors.NotFoundError:
        missing.append(f"{path} is missing.")
        return None
    except ValueError as error:
        missing.append(f"{path} is damaged and was left out ({error}).")
        return None
    if not isinstance(value, kind):
        missing.append(f"{path} is not what this program writes there and was left out.")
        return None
    return value


def _read_lines(path: str, missing: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Lines of metrics.jsonl by split; of a step that comes twice, the last line."""
    try:
        text = file_io.read(path).decode(errors="replace")
    except tf.errors.NotFoundError:
        missing.append(f"{path} is missing, so there are no training curves.")
        text = ""
    by_split: dict[str, dict[int, dict[str, Any]]] = {"train": {}, "validation": {}}
    damaged = 0
    for line in filter(str.strip, text.splitlines()):
        try:
            entry = json.loads(line)
            by_split[entry["split"]][int(entry["step"])] = entry
        except (ValueError, KeyError, TypeError):
            damaged += 1
    if damaged:
        missing.append(f"{path}: {damaged} damaged line{'s' * (damaged > 1)} left out.")
    return {split: [entries[step] for step in sorted(entries)] for split, entries in by_split.items()}
