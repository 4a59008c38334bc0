"""All exports of a model side by side: what they find, how large they are, and how long an image takes."""

import functools
import importlib.util
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from solo_dist.benchmarks.timing import alternate
from solo_dist.data.input.pipeline import build_dataset
from solo_dist.errors import ConfigError, ExportFailed
from solo_dist.exporting import job, parity
from solo_dist.exporting.graphs import export_function
from solo_dist.exporting.pairs import choose_pairs
from solo_dist.exporting.settings import ExportSettings
from solo_dist.exporting.shipped.detect import load_model
from solo_dist.inference.detector import Detector

KINDS = (
    ("savedmodel", "float32", "detections"),
    ("tflite", "float32", "detections"),
    ("tflite", "float16", "detections"),
    ("tflite", "dynamic", "detections"),
    ("tflite", "int8", "raw"),
    ("onnx", "float32", "detections"),
    ("onnx", "float16", "detections"),
)
"""Format, precision, outputs."""
MODEL, STATIC = "model", "model, static graph"
"""Names of the rows of the model itself, as `predict` runs it, and in the form that TFLite and ONNX files hold."""

Row = dict[str, Any]


def compare(
    detector: Detector, folder: str, kinds: Sequence[tuple[str, str, str]], pairs: int, images: int, rounds: int
) -> dict[str, Row]:
    """Exports a model in several ways, checks each and times all in turns.

    Args:
      detector: the model, in float32.
      folder: on this machine; gets a folder for each export.
      kinds: some of `KINDS`.
      pairs: see `ExportSettings.pairs`; 0: as `choose_pairs` says.
      images: validation images to compare on.
      rounds: turns that each export is timed for; the median counts.

    Returns:
      A row for each export: what `parity.check` reports, with the AP as `ap`; bytes; and milliseconds by number of
      threads ("1", "all"); or only `failed`, why there is no such export. The two rows of the model have less.
    Raises:
      ConfigError, DataError: there are no validation shards that fit.
    """
    pairs = pairs or choose_pairs(detector, images)
    rows: dict[str, Row] = {}
    runs: dict[tuple[str, str], Callable[[np.ndarray], Any]] = {(MODEL, "all"): _run_in_tensorflow(detector.detect)}
    for kind in kinds:
        settings = ExportSettings(*kind, pairs=pairs)
        name = settings.name or settings.format
        try:
            row = _exported(detector, settings, f"{folder}/{name}", images)
        except (ConfigError, ExportFailed) as error:
            rows[name] = {"failed": str(error)}
            continue
        rows.setdefault(MODEL, {"ap": row["ap_model"]})
        rows[name] = row
        print(f"{name}: mask AP {row['ap']:.4f}, {row['bytes'] / 1e6:.1f} MB", flush=True)
        runs |= _runs(name, settings, f"{folder}/{name}")
        if settings.format != "savedmodel":
            static = export_function(detector, ExportSettings("onnx", pairs=pairs))
            runs.setdefault((STATIC, "all"), _run_in_tensorflow(static))
    canvases = next(iter(build_dataset(detector.config, "validation", batch_size=1)))["image"].numpy()
    cases = {f"{name}|{threads}": functools.partial(run, canvases) for (name, threads), run in runs.items()}
    for case, seconds in alternate(cases, rounds).items():
        name, _, threads = case.partition("|")
        rows.setdefault(name, {}).setdefault("milliseconds", {})[threads] = 1000 * statistics.median(seconds)
    return rows


def format_rows(rows: dict[str, Row]) -> str:
    """The rows as a Markdown table; `only one has` counts detections that the model or the export lacks."""
    lines = [
        "| export | mask AP | only one has | largest difference of a score | MB | ms, 1 thread | ms, all threads |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if "failed" in row:
            continue
        times = row["milliseconds"]
        cells = [
            name,
            f"{row['ap']:.4f}" if "ap" in row else "",
            f"{row['unmatched']} of {row['detections']}" if "unmatched" in row else "",
            f"{row['score']:.1e}" if "score" in row else "",
            f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else "",
            *(f"{times[threads]:.1f}" if threads in times else "" for threads in ("1", "all")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    failed = [f"{name}: {row['failed']}" for name, row in rows.items() if "failed" in row]
    return "\n".join([*lines, *failed])


def _exported(detector: Detector, settings: ExportSettings, folder: str, images: int) -> Row:
    """Writes an export and compares it with the model."""
    job.check_possible(detector, settings)
    job.write_export(detector, settings, folder, lambda: job.representative_canvases(detector, 1))
    report = parity.check(detector, settings, folder, images)
    ap, differences = report.pop("ap_export"), report.pop("largest_differences")
    return {"ap": ap, **report, **differences, "bytes": job.bytes_of(folder, settings)}


def _runs(name: str, settings: ExportSettings, folder: str) -> dict[tuple[str, str], Callable[[np.ndarray], Any]]:
    """Name and threads -> the export in a runtime. TensorFlow has all threads in this process."""
    if settings.format == "savedmodel":
        return {(name, "all"): load_model(folder)[1]}
    threads = {"1": 1, "all": os.cpu_count() or 1}
    runs = {(name, key): load_model(folder, count)[1] for key, count in threads.items()}
    if settings.format == "onnx" and importlib.util.find_spec("openvino"):
        runs |= {(f"{name} in OpenVINO", key): load_model(folder, n, "openvino")[1] for key, n in threads.items()}
    return runs


def _run_in_tensorflow(function: Callable[[np.ndarray], dict[str, tf.Tensor]]) -> Callable[[np.ndarray], Any]:
    return lambda canvases: {name: value.numpy() for name, value in function(canvases).items()}
