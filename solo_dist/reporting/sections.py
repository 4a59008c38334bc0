"""The contents of the report's template, made from numbers: texts, rows of tables and plots."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from solo_dist.data.schema import Manifest
from solo_dist.reporting import plots
from solo_dist.reporting.analysis import FREQUENCIES, RARE, Analysis
from solo_dist.reporting.confusion import most_confused
from solo_dist.reporting.curves import Curve, curve
from solo_dist.reporting.errors_by_kind import KINDS, Kind
from solo_dist.reporting.grid_facts import GridCounts
from solo_dist.reporting.headlines import headlines
from solo_dist.reporting.run_files import RunFiles
from solo_dist.reporting.training_curves import Course, dropped_positives_a_step, smoothed_loss

_COCO_NAMES = (
    ("AP", "overlaps 0.50 to 0.95"), ("AP50", "overlap 0.50"), ("AP75", "overlap 0.75"), ("APs", "small"),
    ("APm", "medium"), ("APl", "large"), ("AR1", "at most 1 detection an image"), ("AR10", "at most 10"),
    ("AR100", "at most 100"), ("ARs", "small"), ("ARm", "medium"), ("ARl", "large"),
)  # fmt: skip
_MATRIX_CATEGORIES = 24
"""Most categories of the matrix on the page."""
_PLOTTED_CATEGORIES = 6
_CONFUSIONS = 12
_MOST_HIDDEN_ROWS = 400
"""From this number of categories on, those without instances are left to categories.csv."""

EMPTY: dict[str, Any] = {
    "a": None, "headlines": [], "worst": [], "typical": [], "close_ups": [], "grids": [], "grid_facts": [],
    "grid_text": "", "speed": None,
}  # fmt: skip
"""Values of the sections that a run may not have."""


def of_evaluation(analysis: Analysis, ceiling: Mapping[str, float]) -> dict[str, Any]:
    """Quality, categories, threshold, errors, confusion."""
    few = len(analysis.rows) < _MOST_HIDDEN_ROWS
    rows = [row for row in analysis.rows if few or row.outcome.truths or row.shown]
    rows.sort(key=lambda row: (np.isnan(row.ap), row.ap))
    bounds = {name: f"{low} to {high}" if high < 10**9 else f"over {low - 1}" for name, low, high in FREQUENCIES}
    return {
        "a": analysis,
        "ceiling": ceiling,
        "coco_names": _COCO_NAMES,
        "frequency_bounds": bounds,
        "size_bounds": {"small": "below 32 x 32 pixels", "medium": "below 96 x 96", "large": "from 96 x 96"},
        "rows": rows,
        "hidden_rows": len(analysis.rows) - len(rows),
        "rare": any(row.rare for row in rows),
        "rare_limit": RARE,
        "trained_known": any(row.trained is not None for row in rows),
        **_thresholds(analysis),
        **_errors(analysis),
        **_confusion(analysis),
    }


def of_run(run: RunFiles, course: Course, analysis: Analysis | None, ceiling: Mapping[str, float]) -> dict[str, Any]:
    """Title, what was trained, and its curves."""
    packages, environment = run.environment.get("packages", {}), run.environment
    weights = run.option("model.weights") or run.option("model.backbone.weights") or "random"
    facts = {
        "recipe": run.option("name"),
        "training data": run.option("data.train"),
        "validation data": run.option("data.validation"),
        "starting weights": weights,
        "backbone": run.option("model.backbone.name"),
        "canvas, height x width": " x ".join(map(str, run.option("data.canvas", []))),
        "images a step": run.option("train.global_batch"),
        "precision": run.option("runtime.precision"),
        "devices": ", ".join(environment.get("gpus", [])) or ", ".join(environment.get("devices", [])),
        "replicas": environment.get("replicas"),
        "solo_dist": f"{environment.get('solo_dist', '')} {environment.get('revision', '')}".strip(),
        "TensorFlow": packages.get("tensorflow"),
        "Python": environment.get("python"),
    }
    step = f"step {run.evaluation.step}" if run.evaluation else "not evaluated"
    images = f", {analysis.num_images} validation images with {analysis.num_truths} instances" if analysis else ""
    return {
        "title": f"What {run.name} has learned" if analysis else f"Training of {run.name}",
        "subtitle": f"{run.option('name', 'unknown recipe')}, {step}{images}. {run.folder}",
        "course": course,
        "facts": [(name, value) for name, value in facts.items() if value not in (None, "")],
        "recipe": list(run.options.items()),
        "training_plots": _training_plots(run),
        "headlines": headlines(analysis, course, ceiling.get("AP")) if analysis else [],
    }


def of_grids(manifest: Manifest, train: Manifest | None, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collisions that the shard tool counted, and positives beyond data.max_positives."""
    facts: list[tuple[str, Any]] = []
    for name, shards in (("training", train), ("validation", manifest)):
        if shards:
            counts = shards.statistics
            facts += [
                (f"{name} instances", shards.num_instances),
                (f"{name} instances that lose a cell", counts.get("colliding", 0)),
                (f"{name} instances that lose all", counts.get("lost", 0)),
                (f"{name} instances without a cell", counts.get("without_positives", 0)),
            ]
    dropped = dropped_positives_a_step(lines)
    if not np.isnan(dropped):
        facts.append(("positives beyond data.max_positives, a step", f"{dropped:.2f}"))
    return {"grid_facts": facts}


def of_grid_comparison(rows: Sequence[GridCounts]) -> dict[str, Any]:
    """A sentence on the effect of denser grids."""
    now, denser = rows
    if now.without_cells <= 0.01 * max(now.instances, 1):
        text = "Nearly every instance has a cell of its own: denser grids would gain little and cost time."
    elif denser.without_cells < now.without_cells:
        gained = now.without_cells - denser.without_cells
        text = f"Half as many cells more on each side would give {gained} more of these instances cells of their own."
    else:
        text = "Denser grids would not give more instances cells of their own; see model.grid.scale_ranges instead."
    return {"grids": list(rows), "grid_text": text}


def _thresholds(analysis: Analysis) -> dict[str, Any]:
    calibration, detections = analysis.calibration, analysis.matches.detections
    categories: dict[str, Curve] = {}
    if len(analysis.rows) > 1:
        weakest = sorted(
            (i for i, row in enumerate(analysis.rows) if row.outcome.truths), key=lambda i: analysis.rows[i].ap
        )
        for i in weakest[:_PLOTTED_CATEGORIES]:
            mine = (detections.category == i) & ~analysis.matches.ignored
            correct = analysis.matches.truth_of[mine] >= 0
            categories[analysis.rows[i].name] = curve(detections.score[mine], correct, analysis.rows[i].outcome.truths)
    rows = [
        {
            "range": f"{i / 10:.1f} to {(i + 1) / 10:.1f}",
            "detections": int(calibration.detections[i]),
            "score": float(calibration.score[i]),
            "correct": float(calibration.correct[i]),
        }
        for i in range(10)
    ]
    return {
        "operating": [
            ("the best balance (best F1)", analysis.best),
            (f"at least {analysis.wanted_precision:.0%} right", analysis.precise),
        ],
        "threshold_plots": [
            Markup(plots.over_threshold(analysis.curve, analysis.best)),
            Markup(plots.precision_recall(analysis.curve, categories)),
        ],
        "calibration_plot": Markup(plots.reliability(calibration)),
        "calibration_rows": rows,
        "calibration_text": _calibration_text(analysis),
    }


def _calibration_text(analysis: Analysis) -> str:
    error, lean = analysis.calibration.visible
    if np.isnan(error):
        return "There is no detection with a score of 0.1 or more, so there is nothing to say about scores."
    text = f"From 0.1 on, a score is on average {error:.2f} away from the share of right detections of that score"
    if error < 0.05:
        return f"{text}: close enough to be read as a probability."
    return f"{text}: scores are too {'high' if lean > 0 else 'low'} and serve to rank detections, not as probabilities."


def _errors(analysis: Analysis) -> dict[str, Any]:
    mended, counts = analysis.mended, np.bincount(analysis.errors.kind, minlength=len(Kind))
    number = {**dict(enumerate(counts.tolist())), int(Kind.MISSED): int(analysis.errors.missed.sum())}
    rows = [
        {
            "name": name,
            "count": number[int(kind)],
            "after": mended.after[kind],
            "gain": mended.after[kind] - mended.ap50,
            "share": round(100 * float(np.nan_to_num(mended.after[kind] - mended.ap50)), 1),
            "meaning": meaning,
        }
        for kind, (name, meaning) in KINDS.items()
    ]
    rows.sort(key=lambda row: -np.nan_to_num(row["gain"]))
    right, ignored = int(counts[Kind.CORRECT]), int(counts[Kind.IGNORED])
    return {
        "error_rows": rows,
        "counts": {"correct": right, "ignored": ignored, "wrong": int(counts.sum()) - right - ignored},
    }


def _confusion(analysis: Analysis) -> dict[str, Any]:
    matrix, names = analysis.confusion, analysis.categories
    off = matrix[:-1, :-1].copy()
    np.fill_diagonal(off, 0)
    weight = off.sum(0) + off.sum(1)
    used = [i for i in range(len(names)) if matrix[i].sum() + matrix[:, i].sum()]
    chosen = sorted(sorted(used, key=lambda i: -weight[i])[:_MATRIX_CATEGORIES])
    places = [*chosen, len(names)]
    rows = []
    for i in places:
        total = max(int(matrix[i].sum()), 1)
        cells = []
        for j in places:
            shade = "found" if i == j else "false" if i == len(names) else "missed" if j == len(names) else "confused"
            share = round(70 * int(matrix[i, j]) / total)
            cells.append({"count": int(matrix[i, j]), "share": share, "shade": shade})
        rows.append({"name": names[i] if i < len(names) else "nothing, or found already", "cells": cells})
    return {
        "matrix": rows,
        "matrix_names": [names[i] for i in chosen],
        "matrix_left_out": len(chosen) < len(used),
        "confused": [(names[i], names[j], count) for i, j, count in most_confused(matrix, _CONFUSIONS)],
    }


def _training_plots(run: RunFiles) -> list[Markup]:
    steps = [line["step"] for line in run.train]
    found = []
    if steps:
        tags = {"total": "loss/total", "category": "loss/category", "mask": "loss/mask"}
        present = {name: tag for name, tag in tags.items() if any(tag in line for line in run.train)}
        series = {name: (steps, smoothed_loss(run.train, tag).tolist()) for name, tag in present.items()}
        found.append(plots.lines("Losses on training images", series, "step", bottom=0))
    aps = [line for line in run.validation if line.get("segm/AP", -1) >= 0]
    if len(aps) > 1:
        series = {
            name: ([line["step"] for line in aps], [line.get(f"segm/{name}", np.nan) for line in aps])
            for name in ("AP", "AP50")
        }
        found.append(plots.lines("AP on validation images", series, "step", markers=True, bottom=0))
    for title, tag in (("Learning rate", "lr"), ("Images a second", "images_per_second")):
        if any(tag in line for line in run.train):
            values = [line.get(tag, np.nan) for line in run.train]
            found.append(plots.lines(title, {title: (steps, values)}, "step", bottom=0))
    return [Markup(svg) for svg in found]
