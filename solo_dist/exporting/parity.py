"""Whether an export finds what the model finds: both on the same validation images, compared and timed.

The export runs through the loader that travels with it (shipped/detect.py), as it will elsewhere.
"""

import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from solo_dist.data.input.pipeline import build_dataset, load_split
from solo_dist.data.input.reader import readable_errors
from solo_dist.data.schema import NO_IMAGE
from solo_dist.errors import ExportFailed
from solo_dist.exporting.settings import ExportSettings
from solo_dist.exporting.shipped.detect import load_model
from solo_dist.inference.coco_metrics import CocoEvaluator, first_visits
from solo_dist.inference.coco_results import results_of_batch
from solo_dist.inference.detector import Detector, raw_outputs
from solo_dist.solo.postprocess import detect
from solo_dist.solo.static_postprocess import count_pairs

_TIMED_CALLS = 10
_SAME_SCORE = 0.05
"""Two detections of a category are the same if their scores differ by less and their masks have an IoU above 0.5."""

Arrays = Mapping[str, np.ndarray]
Run = Callable[[np.ndarray], Any]


@dataclasses.dataclass
class Differences:
    """Differences between the detections of the model and those of its export, over all images seen."""

    detections: int = 0
    """Number of detections of the model."""
    unmatched: int = 0
    """Detections that only one of the two has."""
    score: float = 0.0
    """Largest, of detections that both have."""
    mask_probability: float = 0.0
    """Largest of any pixel of a mask that both have."""
    mask_pixels: int = 0
    """Quarter-resolution pixels that are inside one of the two masks only."""

    def add(self, expected: Arrays, found: Arrays, mask_threshold: float) -> None:
        """Compares the detections of one image: scores, categories [D], mask_probabilities [D,h,w], count."""
        ours, theirs = _without_padding(expected), _without_padding(found)
        left = set(range(len(theirs["scores"])))
        self.detections += len(ours["scores"])
        for category, score, mask in zip(ours["categories"], ours["scores"], ours["mask_probabilities"], strict=True):
            alike = [
                j
                for j in left
                if theirs["categories"][j] == category and abs(theirs["scores"][j] - score) < _SAME_SCORE
            ]
            overlaps = {j: _iou(mask, theirs["mask_probabilities"][j], mask_threshold) for j in alike}
            best = max(alike, key=overlaps.__getitem__, default=-1)
            if best < 0 or overlaps[best] <= 0.5:
                self.unmatched += 1
                continue
            left.remove(best)
            other = theirs["mask_probabilities"][best]
            self.score = max(self.score, float(abs(theirs["scores"][best] - score)))
            self.mask_probability = max(self.mask_probability, float(np.abs(mask - other).max()))
            self.mask_pixels += int(((mask > mask_threshold) != (other > mask_threshold)).sum())
        self.unmatched += len(left)


def _without_padding(image: Arrays) -> Arrays:
    """The detections of an image: arrays [D,...] -> [count,...]."""
    return {name: image[name][: int(image["count"])] for name in ("scores", "categories", "mask_probabilities")}


def check(detector: Detector, settings: ExportSettings, folder: str, images: int) -> dict[str, Any]:
    """Runs model and export on validation images.

    Args:
      detector: the model.
      settings: what was exported.
      folder: where, on this machine.
      images: how many; the first of data.validation.

    Returns:
      The content of report.json, without time, size and limit.
    Raises:
      ConfigError, DataError: there are no validation shards that fit.
    """
    config, threshold = detector.config, detector.config.postprocess.mask_threshold
    manifest = load_split(config, "validation")
    _, run = load_model(folder)
    reference, differences, most_pairs = _reference(detector), Differences(), 0
    ours, theirs = CocoEvaluator(manifest.annotations), CocoEvaluator(manifest.annotations)
    with readable_errors():
        for batch in build_dataset(config, "validation", batch_size=settings.batch):
            numbers = first_visits(np.asarray(batch["image_id"]), ours.image_ids)
            batch = {**batch, "image_id": numbers}
            expected = {key: value.numpy() for key, value in reference(batch["image"]).items()}
            found = run(batch["image"].numpy())
            most_pairs = max(most_pairs, int(expected.pop("pairs").max()))
            for evaluator, arrays in ((ours, expected), (theirs, found)):
                evaluator.add(results_of_batch(arrays, batch, manifest.categories, threshold), numbers)
            for i in np.flatnonzero(numbers != NO_IMAGE):
                differences.add({k: v[i] for k, v in expected.items()}, {k: v[i] for k, v in found.items()}, threshold)
            if len(ours.image_ids) >= images:
                break
    model_ap, export_ap = (evaluator.metrics()["segm/AP"] for evaluator in (ours, theirs))
    return {
        "images": len(ours.image_ids),
        "ap_model": model_ap,
        "ap_export": export_ap,
        "ap_drop": model_ap - export_ap,
        "largest_differences": dataclasses.asdict(differences),
        "pairs": settings.pairs or None,
        "most_pairs_of_an_image": most_pairs,
    }


def refuse_loss(report: Mapping[str, Any], max_ap_drop: float) -> None:
    """Raises ExportFailed if the AP of an export is too far below that of the model."""
    if report["ap_drop"] > max_ap_drop:
        raise ExportFailed(
            f"The export reaches mask AP {report['ap_export']:.4f} on {report['images']} validation images, the model "
            f"{report['ap_model']:.4f}: a loss of {report['ap_drop']:.4f}, above --max_ap_drop={max_ap_drop}. See "
            "report.json, and take another --precision."
        )


def format_report(report: Mapping[str, Any]) -> str:
    """The report as a table for people."""
    differences, times = report["largest_differences"], report["milliseconds_an_image"]
    rows = [
        (f"mask AP on {report['images']} images", f"{report['ap_export']:.4f} (model: {report['ap_model']:.4f})"),
        ("detections that only one has", f"{differences['unmatched']} of {differences['detections']}"),
        ("largest difference of a score", f"{differences['score']:.2g}"),
        ("largest difference of a pixel", f"{differences['mask_probability']:.2g} (probability)"),
        ("mask pixels that differ", f"{differences['mask_pixels']}"),
        (
            "pairs above the score threshold",
            f"at most {report['most_pairs_of_an_image']}"
            + (f", {report['pairs']} get a mask" if report["pairs"] else ""),
        ),
        ("size", f"{report['bytes'] / 1e6:.2f} MB"),
        *((f"ms an image, {name} threads", f"{value:.1f}") for name, value in times.items()),
    ]
    return "\n".join(f"  {name:34}{value}" for name, value in rows)


def _reference(detector: Detector) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The trainer's own prediction, with the number of pairs above the score threshold beside it."""
    model, rules = detector.config.model, detector.config.postprocess

    def run(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = raw_outputs(detector.model, images)
        return detect(outputs, model, rules) | {"pairs": count_pairs(outputs, model, rules)}

    return tf.function(run, autograph=False)


def time_export(detector: Detector, settings: ExportSettings, folder: str) -> dict[str, float]:
    """Median milliseconds an image, by number of threads, on the first validation images; a SavedModel uses all."""
    canvases = next(iter(build_dataset(detector.config, "validation", batch_size=settings.batch)))["image"].numpy()
    cores = os.cpu_count() or 1
    threads = {"all": 0} if settings.format == "savedmodel" else {"1": 1, f"all ({cores})": cores}
    return {name: _milliseconds(load_model(folder, count)[1], canvases) for name, count in threads.items()}


def _iou(one: np.ndarray, other: np.ndarray, threshold: float) -> float:
    one, other = one > threshold, other > threshold
    return float((one & other).sum() / max(1, (one | other).sum()))


def _milliseconds(run: Run, canvases: np.ndarray) -> float:
    times = []
    for _ in itertools.repeat(None, _TIMED_CALLS + 1):
        start = time.perf_counter()
        run(canvases)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:]) / len(canvases)
