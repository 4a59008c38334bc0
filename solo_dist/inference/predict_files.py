"""From image files to overlays and COCO results: what `solo-dist predict` does."""

import dataclasses
import io
import json
import posixpath
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from solo_dist.data.image_io import read_image
from solo_dist.data.pixel_range import FULL_RANGE
from solo_dist.errors import ConfigError, Unusable
from solo_dist.inference.coco_metrics import BEST_THRESHOLD, encode_masks, load_annotations
from solo_dist.inference.detector import Detector, Found
from solo_dist.run.directory import EVALUATION_METRICS_FILE, RESULTS_FILE, RunDirectory
from solo_dist.storage import file_io
from solo_dist.viz.overlay import overlay

_OVERLAY_QUALITY = 92


@dataclasses.dataclass
class Summary:
    """Counts of a prediction."""

    images: int = 0
    """Images that were read."""
    instances: int = 0
    """Instances found in them."""
    unreadable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """Path and reason of each image that could not be read."""


def find_images(pattern: str) -> list[str]:
    """Paths of a file, of the images in a folder, or of what matches a pattern, sorted.

    Raises ConfigError if there are none.
    """
    folder = pattern.rstrip("/")
    if file_io.is_folder(folder):
        paths = [f"{folder}/{name}" for name in file_io.names(folder) if name.lower().endswith(file_io.IMAGE_SUFFIXES)]
        if not paths:
            raise ConfigError(
                f"--images={pattern} is a folder without an image; give a pattern such as '{folder}/*/*'."
            )
        return paths
    paths = [path for path in file_io.matches(pattern) if not file_io.is_folder(path)]
    if not paths:
        raise ConfigError(f"No file matches --images={pattern}; put the pattern in quotes, for example 'photos/*.jpg'.")
    return paths


def listed_images(annotations: str, folder: str) -> list[str]:
    """Paths of the images that a COCO json lists, whose names are relative to a folder, sorted.

    Raises:
      AnnotationsError: the json cannot be read, or is not COCO instances.
    """
    names = {image["file_name"] for image in load_annotations(annotations)["images"]}
    return [f"{folder.rstrip('/')}/{name}" for name in sorted(names)]


def predict_images(detector: Detector, paths: Sequence[str], output: str, score_threshold: float) -> Summary:
    """Writes an overlay for each image and all results as one json.

    Args:
      detector: the model.
      paths: image files, paths or URLs.
      output: folder, made if it is missing.
      score_threshold: least score of what is drawn and written.
    """
    summary, results = Summary(), []
    names = overlay_names(paths)
    folder = posixpath.realpath(output)
    if beside := [path for path in paths if posixpath.realpath(posixpath.dirname(path)) == folder]:
        raise ConfigError(f"--output={output} has images in it, such as {beside[0]}; choose another folder.")
    bar = tqdm.tqdm(paths, desc="predicting", unit=" images")
    for number, (path, name) in enumerate(zip(bar, names, strict=True), start=1):
        try:
            image = read_image(path, detector.pixel_range or FULL_RANGE)
        except Unusable as error:
            summary.unreadable.append((path, str(error)))
            continue
        found = _above(detector.detect_image(image), score_threshold)
        _write_overlay(f"{output}/{name}", image, found, detector.categories)
        results += coco_results(found, number, path, detector.categories)
        summary.images += 1
        summary.instances += len(found.scores)
    file_io.write(f"{output}/{RESULTS_FILE}", json.dumps(results).encode())
    return summary


def best_threshold(workdir: str, step: int) -> float:
    """The score threshold with the best F1 that the report of an evaluation at a step found. Raises ConfigError."""
    path = f"{RunDirectory(workdir).evaluation(step)}/{EVALUATION_METRICS_FILE}"
    try:
        return float(json.loads(file_io.read(path))[BEST_THRESHOLD])
    except (tf.errors.NotFoundError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"--score_threshold=best: {path} has no {BEST_THRESHOLD}; run solo-dist evaluate --report with the same "
            "--workdir and --checkpoint first, or give a number."
        ) from None


def overlay_names(paths: Sequence[str]) -> list[str]:
    """A file name ending in .jpg for each path; paths of the same name in different folders get a number."""
    taken: set[str] = set()
    names = []
    for path in paths:
        stem = posixpath.splitext(posixpath.basename(path))[0]
        name, count = f"{stem}.jpg", 1
        while name in taken:
            count += 1
            name = f"{stem}_{count}.jpg"
        taken.add(name)
        names.append(name)
    return names


def coco_results(found: Found, image_id: int, path: str, categories: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries of coco_instances_results.json for one image."""
    return [
        {
            "image_id": image_id,
            "file_name": path,
            "category_id": categories[index]["id"],
            "score": float(score),
            "segmentation": rle,
        }
        for score, index, rle in zip(found.scores, found.classes, encode_masks(found.masks), strict=True)
    ]


def labels_of(found: Found, categories: Sequence[dict[str, Any]]) -> list[str]:
    """Category and score of each instance, for people."""
    pairs = zip(found.classes, found.scores, strict=True)
    return [f"{categories[index]['name']} {score:.2f}" for index, score in pairs]


def _above(found: Found, score_threshold: float) -> Found:
    # An instance without a pixel at the original size cannot be shown.
    kept = (found.scores >= score_threshold) & found.masks.any(axis=(1, 2))
    return Found(*(values[kept] for values in found))


def _write_overlay(path: str, image: np.ndarray, found: Found, categories: Sequence[dict[str, Any]]) -> None:
    drawn = overlay(image, found.masks, labels_of(found, categories))
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=_OVERLAY_QUALITY, subsampling=0)
    file_io.write(path, buffer.getvalue())
