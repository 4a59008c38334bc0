"""Mask AP of COCO: ground truth, results in COCO's format, and the twelve metrics.

    evaluator = CocoEvaluator(manifest.annotations)
    evaluate(detect, batches, evaluator, manifest.categories, mask_threshold)
    metrics = evaluator.metrics()  # {"segm/AP": 0.37, ...}
    print(format_table(metrics))

Masks are compared at the size of the original images, crowds included, by faster-coco-eval, whose numbers are those
of pycocotools to twelve digits; pycocotools does it if faster-coco-eval is not installed.
"""

import contextlib
import gzip
import io
import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm
from pycocotools.coco import COCO

from solo_dist import json_text
from solo_dist.data.schema import NO_IMAGE, crc32c
from solo_dist.errors import DataError
from solo_dist.inference.coco_results import Result, results_of_batch
from solo_dist.inference.federated import (
    LVIS_METRICS,
    FederatedTruth,
    federated_evaluation,
    federated_metrics,
    is_federated,
)
from solo_dist.masks import rle as runs
from solo_dist.run.directory import CATEGORY_METRICS_FILE, EVALUATION_METRICS_FILE, IMAGE_IDS_FILE, RESULTS_FILE
from solo_dist.storage import file_io

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The metrics in the order of COCOeval.stats; tags have the prefix segm/."""

BEST_THRESHOLD = "threshold/best"
"""Key of metrics.json: the score threshold with the best F1, which the report adds."""

try:
    from faster_coco_eval import COCOeval_faster as COCOeval

    logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # it logs 20 lines an evaluation
except ImportError:  # no compiled package for this platform
    from pycocotools.cocoeval import COCOeval


class AnnotationsError(DataError):
    """Ground truth that cannot be read; the message names the file."""


def load_annotations(path: str) -> dict[str, Any]:
    """Reads a COCO instances json, gzip or plain, from a path or URL. Raises AnnotationsError."""
    try:
        data = file_io.read(path)
        coco = json_text.parse(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (tf.errors.NotFoundError, OSError, EOFError, json_text.NotJson, zlib.error) as error:
        words = f"The annotations {path} cannot be read: {error}"
        raise AnnotationsError(f"{words}. If they are of shards, shard the data again.") from error
    lists = [name for name in coco if isinstance(coco[name], list)] if isinstance(coco, dict) else []
    missing = {"images", "annotations", "categories"}.difference(lists)
    if missing:
        raise AnnotationsError(f"The annotations {path} are not COCO instances: no {', '.join(sorted(missing))}.")
    return coco


def evaluate(
    detect: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    batches: Iterable[Mapping[str, tf.Tensor]],
    evaluator: "CocoEvaluator",
    categories: Sequence[Mapping[str, Any]],
    mask_threshold: float,
    images: int = 0,
    progress: bool = False,
) -> None:
    """Runs detection over validation batches and adds the results to the evaluator.

    Args:
      detect: images uint8 [B,H,W,3] to what `postprocess.detect` gives.
      batches: of the validation split, each image once; image_id NO_IMAGE is padding.
      evaluator: collects the results.
      categories: of the classes, as in `results_of_image`.
      mask_threshold: of the probability.
      images: stop after the batch with this many images; 0: all.
      progress: show a bar.
    """
    every = len(evaluator.annotations["images"])
    with tqdm.tqdm(total=min(images or every, every), unit=" images", desc="evaluating", disable=not progress) as bar:
        for batch in batches:
            # The next record replaces a broken one, so its image can come twice.
            numbers = first_visits(np.asarray(batch["image_id"]), evaluator.image_ids)
            batch = {**batch, "image_id": numbers}
            results = results_of_batch(detect(batch["image"]), batch, categories, mask_threshold)
            evaluator.add(results, numbers)
            bar.update(int((numbers != NO_IMAGE).sum()))
            if images and len(evaluator.image_ids) >= images:
                break


def first_visits(image_ids: np.ndarray, visited: set[int]) -> np.ndarray:
    """Image ids [B] with NO_IMAGE in place of those that were visited before, or earlier in the batch."""
    first = np.zeros(len(image_ids), bool)
    first[np.unique(image_ids, return_index=True)[1]] = True
    return np.where(first & ~np.isin(image_ids, list(visited)), image_ids, NO_IMAGE)


def write_evaluation(folder: str, metrics: Mapping[str, float], evaluator: "CocoEvaluator") -> None:
    """Writes metrics.json, category_metrics.json, coco_instances_results.json and image_ids.json to a folder."""
    files = {
        EVALUATION_METRICS_FILE: dict(metrics),
        RESULTS_FILE: evaluator.results,
        IMAGE_IDS_FILE: sorted(evaluator.image_ids),
        CATEGORY_METRICS_FILE: {
            "annotations": annotations_checksum(evaluator.annotations),
            "categories": evaluator.by_category(),
        },
    }
    for name, value in files.items():
        file_io.write(f"{folder}/{name}", json.dumps(value).encode())


def annotations_checksum(annotations: Mapping[str, Any]) -> str:
    """A checksum of everything that metrics depend on, by which one sees whether metrics are of these annotations."""
    return crc32c(json.dumps([annotations[name] for name in ("annotations", "images", "categories")]).encode())


class CocoEvaluator:
    """Collects results and computes the metrics over the images that were visited.

    Args:
      annotations: path of the COCO json, or the json itself.
      max_detections: best detections that count in an image and category.
    """

    def __init__(self, annotations: str | dict[str, Any], max_detections: int = 100):
        self.max_detections = max_detections
        self.annotations = load_annotations(annotations) if isinstance(annotations, str) else annotations
        # faster-coco-eval takes no image ids below 0; their ranks have the same order.
        self._rank = {number: place for place, number in enumerate(sorted(i["id"] for i in self.annotations["images"]))}
        self._federated = is_federated(self.annotations)
        self._truth = _indexed(self.annotations, self._rank)
        self.results: list[Result] = []
        self.image_ids: set[int] = set()
        self._finished: COCOeval | None = None

    def add(self, results: Iterable[Result], image_ids: Iterable[int]) -> None:
        """Adds the results of visited images; an image may have none, and ids of NO_IMAGE are padding.

        Raises:
          AnnotationsError: an image is not in the annotations.
        """
        visited = {int(number) for number in image_ids if number != NO_IMAGE}
        unknown = visited - set(self._rank)
        if unknown:
            raise AnnotationsError(f"Images {sorted(unknown)[:5]} are not in the annotations; shard the data again.")
        self.image_ids |= visited
        self.results.extend(results)
        self._finished = None

    def metrics(self) -> dict[str, float]:
        """The twelve metrics as segm/AP, ..., and those of LVIS; -1 if no ground truth has the size in question."""
        if not self.results:
            return self._without_detections()
        if self._federated:
            return {f"segm/{name}": value for name, value in federated_metrics(self._evaluation()).items()}
        return {f"segm/{name}": value for name, value in zip(METRICS, _means(self._evaluation().eval), strict=True)}

    def by_category(self) -> dict[int, dict[str, float]]:
        """AP, AP50 and AR100 of each category by its id; -1 for a category without ground truth."""
        ids = [category["id"] for category in self.annotations["categories"]]
        if not self.results:
            present = {entry["category_id"] for entry in self._truths_to_find()}
            return {i: dict.fromkeys(("AP", "AP50", "AR100"), 0.0 if i in present else -1.0) for i in ids}
        evaluation = self._evaluation()
        # [10 overlaps, 101 recalls, C, all areas, 100 detections] and the same without recalls.
        precision, recall = evaluation.eval["precision"][..., 0, -1], evaluation.eval["recall"][..., 0, -1]
        values = zip(precision.mean((0, 1)), precision[0].mean(0), recall.mean(0), strict=True)
        names = ("AP", "AP50", "AR100")
        found = [dict(zip(names, map(float, numbers), strict=True)) for numbers in values]
        return dict(zip(map(int, evaluation.params.catIds), found, strict=True))

    def _evaluation(self) -> COCOeval:
        """The finished evaluation, kept until results are added."""
        if self._finished is None:
            with contextlib.redirect_stdout(io.StringIO()):
                results = _loaded(self._truth, _ranked(self.results, self._rank))
                if self._federated:
                    evaluation = federated_evaluation(self._truth, results)
                else:
                    evaluation = COCOeval(self._truth, results, "segm")
                    evaluation.params.maxDets = [1, 10, self.max_detections]
                evaluation.params.imgIds = self._visited_ranks()
                evaluation.evaluate()
                evaluation.accumulate()
                if self._federated:
                    evaluation.summarize()
            self._finished = evaluation
        return self._finished

    def _without_detections(self) -> dict[str, float]:
        """pycocotools does not load an empty list: every metric with ground truth is 0."""
        areas = np.array([entry["area"] for entry in self._truths_to_find()])
        bounds = {"s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, np.inf)}
        values = {}
        for name in METRICS:
            low, high = bounds.get(name[-1], (0, np.inf))
            values[f"segm/{name}"] = 0.0 if ((areas >= low) & (areas <= high)).any() else -1.0
        return values

    def _visited_ranks(self) -> list[int]:
        return sorted(self._rank[number] for number in self.image_ids)

    def _truths_to_find(self) -> list[dict[str, Any]]:
        """The annotations of the visited images, crowds left out."""
        return self._truth.loadAnns(self._truth.getAnnIds(imgIds=self._visited_ranks(), iscrowd=False))


def _means(found: Mapping[str, np.ndarray]) -> Iterator[float]:
    """The values of METRICS; -1 for those without ground truth.

    COCOeval.summarize has them too, but the one of pycocotools only for 100 detections.

    Args:
      found: precision [10 overlaps, 101 recalls, C, 4 areas, 3 numbers of detections], and recall without recalls.
    """
    precision, recall = found["precision"][..., -1], found["recall"]
    half, three_quarters = 0, 5
    yield from map(_mean, (precision[..., 0], precision[half, ..., 0], precision[three_quarters, ..., 0]))
    yield from (_mean(precision[..., area]) for area in (1, 2, 3))
    yield from (_mean(recall[..., 0, detections]) for detections in (0, 1, 2))
    yield from (_mean(recall[..., area, -1]) for area in (1, 2, 3))


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def format_short(metrics: Mapping[str, float]) -> str:
    """AP, AP50 and AP by size in one line."""
    return "  ".join(f"{name} {metrics[f'segm/{name}']:.3f}" for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"))


def format_table(metrics: Mapping[str, float], ceiling: Mapping[str, float] | None = None, most: int = 100) -> str:
    """The table that COCO prints, with a column for the ceiling if it is given."""
    kinds = {"AP": "Average Precision  (AP)", "AR": "Average Recall     (AR)"}
    areas = {"s": " small", "m": "medium", "l": " large"}
    lines = []
    federated = "segm/AR300" in metrics
    counted = {"AR1": "  1", "AR10": " 10", "AR100": f"{most:3d}"}
    for name in METRICS:
        overlap = {"AP50": "0.50     ", "AP75": "0.75     "}.get(name, "0.50:0.95")
        detections = counted.get(name, "300" if federated else f"{most:3d}")
        line = f" {kinds[name[:2]]} @[ IoU={overlap} | area={areas.get(name[-1], '   all')} | maxDets={detections} ]"
        line += f" = {metrics[f'segm/{name}']:6.3f}"
        if ceiling is not None:
            line += f"   ceiling {ceiling[f'segm/{name}']:6.3f}"
        lines.append(line)
    if federated:
        lines.append(" LVIS: " + "  ".join(f"{name} {metrics[f'segm/{name}']:.3f}" for name in LVIS_METRICS))
    return "\n".join(lines)


def _ranked(entries: Iterable[dict[str, Any]], rank: Mapping[int, int]) -> list[dict[str, Any]]:
    """Annotations or results with other image ids."""
    return [entry | {"image_id": rank[entry["image_id"]]} for entry in entries if entry["image_id"] in rank]


def _indexed(coco: dict[str, Any], rank: Mapping[int, int]) -> COCO:
    """The ground truth with ranks in place of the image ids."""
    images = [image | {"id": rank[image["id"]]} for image in coco["images"]]
    # COCOeval notes the id of the annotation that was matched, or 0 if none was; in files ids may well start at 0.
    numbered = [entry | {"id": number} for number, entry in enumerate(_ranked(coco["annotations"], rank), start=1)]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        ground_truth = FederatedTruth()
        ground_truth.dataset = coco | {"images": images, "annotations": numbered}
        ground_truth.createIndex()
    return ground_truth


def _loaded(ground_truth: COCO, results: list[Result]) -> COCO:
    """As COCO.loadRes for masks, without boxes, and with few calls into C for all areas."""
    areas = runs.areas_of_rles([result["segmentation"] for result in results]).tolist()
    loaded = COCO()
    loaded.dataset = {key: ground_truth.dataset[key] for key in ("images", "categories")}
    # New entries, as the evaluation writes into them; results.json must not have these fields.
    loaded.dataset["annotations"] = [
        result | {"id": number, "area": area, "iscrowd": 0}
        for number, (result, area) in enumerate(zip(results, areas, strict=True), start=1)
    ]
    loaded.createIndex()
    return loaded
