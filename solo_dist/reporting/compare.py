"""Several runs side by side: differences of their recipes, the AP that they reached and how fast, and curves.

    path = write_comparison(["runs/a", "gs://bucket/run"], "comparison")

The page is one html file, with a csv file and a json file of its numbers beside it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from solo_dist.errors import ConfigError
from solo_dist.inference.coco_metrics import BEST_THRESHOLD
from solo_dist.reporting import plots
from solo_dist.reporting.page import write_page
from solo_dist.reporting.result_files import write_csv, write_json
from solo_dist.reporting.run_files import RunFiles, read_run
from solo_dist.reporting.splits import short_names
from solo_dist.reporting.training_curves import course, seconds_at, smoothed_loss

_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
FILES = ("comparison.json", "comparison.csv")


@dataclasses.dataclass(frozen=True)
class RunRow:
    """A run in the table."""

    name: str
    step: int | None
    """Step of the evaluation; None if there is none."""
    metrics: dict[str, float]
    """Metrics by the names of COCO; -1 if unknown."""
    threshold: float
    """Score threshold with the best F1; nan before a report was made."""
    seconds: float
    """Seconds of training, estimated from the speed."""
    images_per_second: float
    to_ap: float
    """Seconds of training until AP first reached the goal of the comparison; nan if it never did."""


def write_comparison(folders: Sequence[str], output: str) -> str:
    """Writes a page on runs, given by their directories (paths or URLs), into a folder; returns its path.

    Raises:
      ConfigError: fewer than two runs, the same one twice, or no run in one of the folders.
    """
    folders = [folder.rstrip("/") for folder in folders]
    if len(folders) < 2 or len(set(folders)) < len(folders):
        raise ConfigError("A comparison needs two or more different run directories: solo-dist compare RUN RUN ...")
    runs = [read_run(folder) for folder in folders]
    names, goal = short_names(folders), _goal(runs)
    rows = [_row(run, name, goal) for run, name in zip(runs, names, strict=True)]
    differences = option_differences(runs)
    output = output.rstrip("/")
    records = [_flat(row) for row in rows]
    write_json(f"{output}/comparison.json", {"runs": records, "goal_ap": goal, "options": differences})
    write_csv(f"{output}/comparison.csv", list(records[0]), (record.values() for record in records))
    return write_page(
        output,
        "compare.html",
        title=f"{len(runs)} runs side by side",
        rows=rows,
        metrics=[name for name in _METRICS if any(row.metrics[name] >= 0 for row in rows)],
        best={name: max(row.metrics[name] for row in rows) for name in _METRICS},
        goal=goal,
        names=names,
        differences=differences,
        plots=_plots(runs, names),
        missing=[(name, text) for run, name in zip(runs, names, strict=True) for text in run.missing],
        files=FILES,
    )


def option_differences(runs: Sequence[RunFiles]) -> dict[str, list[Any]]:
    """Fields of the recipes that are not the same in all runs, and the value of each run, None without the field."""
    recipes = [run.options for run in runs]
    names = sorted({name for recipe in recipes for name in recipe})
    values = {name: [recipe.get(name) for recipe in recipes] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def _row(run: RunFiles, name: str, goal: float) -> RunRow:
    progress = course(run.train, run.validation, run.option("train.global_batch", 1))
    evaluation = run.evaluation.metrics if run.evaluation else {}
    values = {metric: evaluation.get(f"segm/{metric}", -1) for metric in _METRICS}
    return RunRow(
        name=name,
        step=run.evaluation.step if run.evaluation else None,
        metrics={metric: value if value >= 0 else -1.0 for metric, value in values.items()},
        threshold=evaluation.get(BEST_THRESHOLD, float("nan")),
        seconds=progress.seconds,
        images_per_second=progress.images_per_second,
        to_ap=_seconds_to(run, goal),
    )


def _goal(runs: Sequence[RunFiles]) -> float:
    """The lowest of the best APs of the runs, which all of them reached; nan if no run has an AP."""
    best = [course(run.train, run.validation, 1).best_ap for run in runs]
    known = [value for value in best if not np.isnan(value)]
    return min(known, default=float("nan"))


def _seconds_to(run: RunFiles, goal: float) -> float:
    reached = [line["step"] for line in run.validation if line.get("segm/AP", -1) >= goal]
    if not reached or not run.train:
        return float("nan")
    seconds = seconds_at(run.train, run.option("train.global_batch", 1))
    return float(np.interp(reached[0], [line["step"] for line in run.train], seconds))


def _plots(runs: Sequence[RunFiles], names: Sequence[str]) -> list[Markup]:
    ap, by_time, loss = {}, {}, {}
    for run, name in zip(runs, names, strict=True):
        steps = [line["step"] for line in run.train]
        if any("loss/total" in line for line in run.train):
            loss[name] = (steps, smoothed_loss(run.train).tolist())
        lines = [line for line in run.validation if line.get("segm/AP", -1) >= 0]
        if lines:
            evaluated, values = [line["step"] for line in lines], [line["segm/AP"] for line in lines]
            ap[name] = (evaluated, values)
            if steps:
                minutes = seconds_at(run.train, run.option("train.global_batch", 1)) / 60
                by_time[name] = (np.interp(evaluated, steps, minutes).tolist(), values)
    found = [
        plots.lines(title, series, label, markers=markers, bottom=0)
        for title, series, label, markers in (
            ("AP on validation images", ap, "step", True),
            ("AP over training time", by_time, "minutes of training", True),
            ("Loss on training images", loss, "step", False),
        )
        if series
    ]
    return [Markup(svg) for svg in found]


def _flat(row: RunRow) -> dict[str, Any]:
    values = dataclasses.asdict(row)
    metrics = values.pop("metrics")
    known = {name: value if value >= 0 else None for name, value in metrics.items()}
    return {"name": values.pop("name"), "step": values.pop("step"), **known, **values}
