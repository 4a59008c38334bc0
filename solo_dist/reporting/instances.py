"""The instances of an evaluation as columns: true ones from COCO annotations, detected ones from COCO results.

    truths, detections = load_instances(annotations, results, image_ids)

Legend of shapes in this package: I images, G true instances (crowds included), D detections, C categories.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from solo_dist.masks import rle as runs

MAX_DETECTIONS = 100
"""Best detections that count in an image and category, as in COCO's metrics."""


@dataclasses.dataclass(frozen=True)
class Truths:
    """True instances by image, in the order of the annotations."""

    image: np.ndarray
    """int32 [G], position in the sorted image ids."""
    category: np.ndarray
    """int32 [G], position in the list of categories."""
    crowd: np.ndarray
    """bool [G]: a group of instances as one mask; detections on it are neither right nor wrong."""
    area: np.ndarray
    """float64 [G], pixels."""
    masks: list[dict[str, Any]]
    """Compressed RLE of each."""


@dataclasses.dataclass(frozen=True)
class Detections:
    """Detections by image, the best first; of equal scores, the earlier result first."""

    image: np.ndarray
    """int32 [D]."""
    category: np.ndarray
    """int32 [D]."""
    score: np.ndarray
    """float64 [D]."""
    masks: list[dict[str, Any]]
    """Compressed RLE of each."""


def load_instances(
    annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]], image_ids: Iterable[int]
) -> tuple[Truths, Detections]:
    """Instances of the given images.

    Args:
      annotations: a COCO instances json; its categories in order are the classes.
      results: entries of coco_instances_results.json.
      image_ids: the images that were evaluated; entries of others are left out.
    """
    position = {number: i for i, number in enumerate(sorted(image_ids))}
    class_of = {category["id"]: i for i, category in enumerate(annotations["categories"])}
    sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
    entries = [entry for entry in annotations["annotations"] if entry["image_id"] in position]
    entries.sort(key=lambda entry: position[entry["image_id"]])
    truths = Truths(
        image=_column((position[entry["image_id"]] for entry in entries), np.int32),
        category=_column((class_of[entry["category_id"]] for entry in entries), np.int32),
        crowd=_column((bool(entry.get("iscrowd", 0)) for entry in entries), bool),
        area=_column((entry["area"] for entry in entries), np.float64),
        masks=[runs.segmentation_to_rle(entry["segmentation"], *sizes[entry["image_id"]]) for entry in entries],
    )
    return truths, _detections([entry for entry in results if entry["image_id"] in position], position, class_of)


def _detections(
    entries: list[Mapping[str, Any]], position: Mapping[int, int], class_of: Mapping[int, int]
) -> Detections:
    image = _column((position[entry["image_id"]] for entry in entries), np.int32)
    category = _column((class_of[entry["category_id"]] for entry in entries), np.int32)
    score = _column((entry["score"] for entry in entries), np.float64)
    order = np.lexsort((-score, image))  # stable: of equal scores the earlier one stays first
    order = order[_rank_in_group(image[order] * (len(class_of) + 1) + category[order]) < MAX_DETECTIONS]
    masks = [_as_bytes(entries[i]["segmentation"]) for i in order]
    return Detections(image[order], category[order], score[order], masks)


def _rank_in_group(group: np.ndarray) -> np.ndarray:
    """How many earlier elements are of the same group, [D] -> int64 [D]."""
    order = np.argsort(group, kind="stable")
    sorted_group = group[order]
    first = np.searchsorted(sorted_group, sorted_group)
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - first
    return rank


def _as_bytes(rle: Mapping[str, Any]) -> dict[str, Any]:
    # pycocotools encodes text counts anew at every call.
    counts = rle["counts"]
    return {"size": rle["size"], "counts": counts.encode() if isinstance(counts, str) else counts}


def _column(values: Iterable[Any], dtype: Any) -> np.ndarray:
    return np.fromiter(values, dtype)
