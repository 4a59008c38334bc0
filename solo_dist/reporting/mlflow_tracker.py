"""Sends the curves of a run to an MLflow server, from the files of the run: the training step knows nothing of it.

    tracker = MlflowTracker("http://127.0.0.1:5000", "solo_dist")
    sent = tracker.send("runs/mine")  # how many values were new

The MLflow run of a run directory is the one with its path as the tag solo_dist.workdir. A value is sent if MLflow has
none of its name and step yet. So a call can be repeated, during the training and after it, and a step that a resumed
training repeats is there once, with the value that was sent first: MLflow cannot change values.
"""

import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from solo_dist.errors import ConfigError, UserError
from solo_dist.reporting.run_files import RunFiles, read_run
from solo_dist.reporting.training_curves import seconds_at
from solo_dist.run.directory import RunDirectory

_WORKDIR_TAG = "solo_dist.workdir"
_BATCH = 1000
"""Most values, and _PARAMETERS most parameters, of one request, as MLflow's API demands."""
_PARAMETERS = 100
_LONGEST_VALUE = 6000
_NO_KEY_CHARACTERS = str.maketrans({character: "_" for character in "=@#()[]{}'\"%&+*,;<>|"})
_ATTEMPTS = "2"
"""Attempts of a request to a server that does not answer; MLflow's own number takes four minutes."""


class TrackingError(UserError):
    """The server does not do what it is asked; the message says what it answered."""


class Point(NamedTuple):
    """A value of a curve."""

    name: str
    """Split and tag, such as train/loss/total."""
    step: int
    value: float
    seconds: float
    """Seconds of training up to this step, estimated from the speed."""


def points_of(run: RunFiles) -> Iterator[Point]:
    """Every finite value of metrics.jsonl, by split, then step."""
    steps = np.array([0, *(line["step"] for line in run.train)], float)
    seconds = np.append(0.0, seconds_at(run.train, run.option("train.global_batch", 1)))
    for split, lines in (("train", run.train), ("validation", run.validation)):
        for line in lines:
            at = float(np.interp(line["step"], steps, seconds))
            for tag, value in line.items():
                if tag not in ("step", "split") and isinstance(value, (int, float)) and math.isfinite(value):
                    yield Point(f"{split}/{tag}".translate(_NO_KEY_CHARACTERS), line["step"], float(value), at)


def has_ended(run: RunFiles) -> bool:
    """Whether the last step has been trained. With train.minutes, the newest checkpoint says which step that is."""
    last = max((line["step"] for line in run.train), default=0)
    total = run.option("train.steps", 0)
    if not total and (newest := RunDirectory(run.folder).checkpoints().newest_metadata()):
        total = newest.total_steps
    return 0 < total <= last


class MlflowTracker:
    """A connection to an experiment of an MLflow server.

    Args:
      uri: of the server; empty: the variable MLFLOW_TRACKING_URI.
      experiment: its name; it is made if it is missing.
    Raises:
      ConfigError: there is no address, or the package is missing.
      TrackingError: the server does not answer.
    """

    def __init__(self, uri: str, experiment: str):
        self._uri = uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        if not self._uri:
            raise ConfigError("There is no address of a server: give --uri=http://HOST:PORT or MLFLOW_TRACKING_URI.")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", _ATTEMPTS)
        try:
            import mlflow
        except ImportError as error:
            raise ConfigError(
                "--to=mlflow needs a package that is not installed: pip install mlflow-skinny, or solo_dist[mlflow]."
            ) from error
        self._entities, self._failure = mlflow.entities, mlflow.exceptions.MlflowException
        self._client = mlflow.MlflowClient(tracking_uri=self._uri)
        found = self._call(self._client.get_experiment_by_name, experiment)
        self._experiment = found.experiment_id if found else self._call(self._client.create_experiment, experiment)

    def send(self, workdir: str) -> int:
        """Sends what is new in a run directory, a path or URL; returns the number of new values.

        Raises:
          ConfigError: there is no run.
          TrackingError: the server does not take it.
        """
        run = read_run(workdir)
        stored = self._stored_run(run)
        number = stored.info.run_id
        self._send_parameters(number, run, stored.data.params)
        new = self._new_points(number, stored, list(points_of(run)))
        for place in range(0, len(new), _BATCH):
            metrics = [
                self._entities.Metric(one.name, one.value, stored.info.start_time + round(1000 * one.seconds), one.step)
                for one in new[place : place + _BATCH]
            ]
            self._call(self._client.log_batch, number, metrics=metrics)
        self._call(self._client.update_run, number, status="FINISHED" if has_ended(run) else "RUNNING")
        return len(new)

    def _stored_run(self, run: RunFiles) -> Any:
        """The MLflow run of a run directory, which is made if it is missing."""
        quoted = run.folder.replace("'", "\\'")
        wanted = f"tags.`{_WORKDIR_TAG}` = '{quoted}'"
        found = self._call(self._client.search_runs, [self._experiment], wanted, max_results=1)
        if found:
            return found[0]
        packages = {f"version.{name}": str(version) for name, version in run.environment.get("packages", {}).items()}
        tags = {_WORKDIR_TAG: run.folder, **packages}
        start = round(1000 * time.time())
        return self._call(self._client.create_run, self._experiment, start_time=start, tags=tags, run_name=run.name)

    def _send_parameters(self, number: str, run: RunFiles, known: dict[str, str]) -> None:
        # MLflow cannot change a parameter, so one that a resumed run has changed keeps its first value.
        new = [(name, str(value)[:_LONGEST_VALUE]) for name, value in run.options.items() if name not in known]
        for place in range(0, len(new), _PARAMETERS):
            chosen = [self._entities.Param(*one) for one in new[place : place + _PARAMETERS]]
            self._call(self._client.log_batch, number, params=chosen)

    def _new_points(self, number: str, stored: Any, points: Sequence[Point]) -> list[Point]:
        known = {
            name: {metric.step for metric in self._call(self._client.get_metric_history, number, name)}
            for name in {point.name for point in points} & set(stored.data.metrics)
        }
        return [point for point in points if point.step not in known.get(point.name, ())]

    def _call(self, method: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return method(*arguments, **named)
        except self._failure as error:
            reason = str(error).splitlines()[0]
            raise TrackingError(f"MLflow at {self._uri} failed: {reason} Check --uri and the server.") from error
