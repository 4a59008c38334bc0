"""Detections as entries of coco_instances_results.json, with their masks as RLE."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from solo_dist.data.schema import NO_IMAGE
from solo_dist.masks.paste import paste_masks

Result = dict[str, Any]


def encode_masks(masks: np.ndarray | Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Bool [n,H0,W0], or n of [H0,W0] -> COCO RLEs with text counts, ready for json."""
    encoded = []
    for mask in masks:
        rle = _encode(np.asarray(mask, bool))
        encoded.append({"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")})
    return encoded


def _encode(mask: np.ndarray) -> dict[str, Any]:
    """What pycocotools' encode gives, of which most of the time would go into the empty columns of a large image."""
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    first, end = (columns[0], columns[-1] + 1) if columns.size else (0, 0)
    pixels = mask[:, first:end].T.ravel()
    changes = first * height + np.flatnonzero(np.diff(pixels, prepend=False, append=False))
    if not changes.size or changes[-1] < height * width:
        changes = np.append(changes, height * width)
    size = [height, width]
    return coco_mask.frPyObjects({"size": size, "counts": np.diff(changes, prepend=0).tolist()}, *size)


def results_of_batch(
    detections: Mapping[str, Any],
    batch: Mapping[str, Any],
    categories: Sequence[Mapping[str, Any]],
    mask_threshold: float,
) -> list[Result]:
    """Detections of a batch as entries of coco_instances_results.json, masks at the original size.

    Args:
      detections: what `postprocess.detect` gives; tensors or arrays.
      batch: image_id [B] (NO_IMAGE: padding, ignored), image_size [B,2] and original_size [B,2].
      categories: of the classes, as in `results_of_image`.
      mask_threshold: of the probability.
    """
    image_ids, image_sizes, original_sizes = (
        np.asarray(batch[key]) for key in ("image_id", "image_size", "original_size")
    )
    counts, scores, classes = (np.asarray(detections[key]) for key in ("count", "scores", "categories"))
    results: list[Result] = []
    for i, count in enumerate(counts):
        if image_ids[i] == NO_IMAGE:
            continue
        # The probabilities of one image at a time are copied off the device.
        probabilities = np.asarray(detections["mask_probabilities"][i][:count])
        masks = paste_masks(probabilities, tuple(image_sizes[i]), tuple(original_sizes[i]), mask_threshold)
        results += results_of_image(int(image_ids[i]), scores[i, :count], classes[i, :count], masks, categories)
    return results


def results_of_image(
    image_id: int,
    scores: np.ndarray,
    classes: np.ndarray,
    masks: np.ndarray | Sequence[np.ndarray],
    categories: Sequence[Mapping[str, Any]],
) -> list[Result]:
    """Detections in an image as entries of coco_instances_results.json.

    Args:
      image_id: of the image.
      scores: float [n].
      classes: int [n].
      masks: n of bool [H0,W0].
      categories: of the classes; "id" goes into the results, and a class without one is passed over.
    """
    return [
        {
            "image_id": image_id,
            "category_id": int(categories[index]["id"]),
            "score": float(score),
            "segmentation": rle,
        }
        for score, index, rle in zip(scores, classes, encode_masks(masks), strict=True)
        if categories[index]["id"] is not None
    ]
