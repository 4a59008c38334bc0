"""The numbers of the report as files: report.json, and tables as csv."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from solo_dist.inference.coco_metrics import BEST_THRESHOLD
from solo_dist.reporting.analysis import Analysis, CategoryRow, GroupRow
from solo_dist.reporting.curves import Operating, spread
from solo_dist.reporting.errors_by_kind import Kind
from solo_dist.reporting.galleries import ImageCounts
from solo_dist.storage import file_io

_MOST_THRESHOLDS = 2000
"""Rows of thresholds.csv; each detection may have a score of its own."""
FILES = ("report.json", "categories.csv", "thresholds.csv", "confusion.csv", "images.csv")


def operating_metrics(analysis: Analysis) -> dict[str, float]:
    """Thresholds as they go into metrics.json; empty if no detection is right."""
    values: dict[str, float] = {}
    if analysis.best:
        values |= {f"threshold/best_{name}": value for name, value in analysis.best._asdict().items()}
        values[BEST_THRESHOLD] = values.pop("threshold/best_threshold")
    if analysis.precise:
        values[f"threshold/precision_{analysis.wanted_precision:.2f}"] = analysis.precise.threshold
    return values


def write_files(folder: str, analysis: Analysis, counts: ImageCounts, images: Sequence[tuple[int, str]]) -> None:
    """Writes FILES but report.json into a folder.

    Args:
      folder: of the report.
      analysis: of the evaluation.
      counts: by image.
      images: id and file name of each, in the order of the counts.
    """
    curve = analysis.curve
    write_csv(f"{folder}/categories.csv", _CATEGORY_HEAD, map(_category_cells, analysis.rows))
    places = spread(len(curve.score), _MOST_THRESHOLDS)
    rows = zip(*(column[places] for column in (curve.score, curve.precision, curve.recall, curve.f1)), strict=True)
    write_csv(f"{folder}/thresholds.csv", ("score", "precision", "recall", "f1"), rows)
    names = [*analysis.categories, ""]
    cells = ((names[i], names[j], analysis.confusion[i, j]) for i, j in np.argwhere(analysis.confusion))
    write_csv(f"{folder}/confusion.csv", ("true", "detected", "count"), cells)
    by_image = zip(images, counts.truths, counts.found, counts.false, counts.f1, strict=True)
    lines = ((*image, *values) for image, *values in by_image)
    write_csv(f"{folder}/images.csv", ("image_id", "file_name", "instances", "found", "false", "f1"), lines)


def as_json(analysis: Analysis) -> dict[str, Any]:
    """The analysis for report.json; null for a number that does not exist."""
    mended = analysis.mended
    kinds = np.bincount(analysis.errors.kind, minlength=len(Kind))
    number = {kind: int(kinds[kind]) for kind in Kind} | {Kind.MISSED: int(analysis.errors.missed.sum())}
    return {
        "images": analysis.num_images,
        "instances": analysis.num_truths,
        "detections": len(analysis.matches.detections.score),
        "metrics": analysis.metrics,
        "threshold": {
            "used": analysis.threshold,
            "best": _operating(analysis.best),
            "wanted_precision": analysis.wanted_precision,
            "for_wanted_precision": _operating(analysis.precise),
        },
        "errors": {
            "ap50": mended.ap50,
            "number": {kind.name.lower(): number[kind] for kind in Kind},
            "ap50_after_mending": {kind.name.lower(): value for kind, value in mended.after.items()},
            "ap50_without_false_detections": mended.after_all_false,
            "ap50_without_unfound_instances": mended.after_all_missing,
        },
        "calibration": {
            "error": analysis.calibration.error,
            "visible_error": analysis.calibration.visible[0],
            **{name: getattr(analysis.calibration, name).tolist() for name in ("score", "correct", "detections")},
        },
        "categories": [
            dict(zip(_CATEGORY_HEAD, map(_plain, _category_cells(row)), strict=True)) for row in analysis.rows
        ],
        "sizes": list(map(_group, analysis.sizes)),
        "instances_in_image": list(map(_group, analysis.crowding)),
        "training_images_of_category": list(map(_group, analysis.frequencies)),
    }


def write_json(path: str, value: Any) -> None:
    """Writes json without nan, which other programs do not read: null instead."""
    file_io.write(path, json.dumps(_plain(value), indent=1, ensure_ascii=False).encode())


_CATEGORY_HEAD = (
    "category", "ap", "ap50", "ar100", "instances", "found", "confused", "inaccurate", "missed", "confused_with",
    "shown", "false", "best_threshold", "best_f1", "training_instances", "rare",
)  # fmt: skip


def _category_cells(row: CategoryRow) -> tuple[Any, ...]:
    best = (row.best.threshold, row.best.f1) if row.best else (None, None)
    values = dataclasses.astuple(row.outcome)
    return (
        row.name, row.ap, row.ap50, row.ar100, *values, row.confused_with,
        row.shown, row.false, *best, row.trained, row.rare,
    )  # fmt: skip


def _group(row: GroupRow) -> dict[str, Any]:
    outcome = dataclasses.asdict(row.outcome) if row.outcome else {}
    return {"name": row.name, "count": row.count, "ap": row.ap50, **outcome}


def _operating(point: Operating | None) -> dict[str, float] | None:
    return point._asdict() if point else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: str, head: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes a table; numbers with six digits, an empty cell for one that does not exist."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    file_io.write(path, buffer.getvalue().encode())


def _cell(value: Any) -> Any:
    value = _plain(value)
    return f"{value:.6g}" if isinstance(value, float) else value
