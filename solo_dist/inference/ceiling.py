"""The ceiling of quarter resolution: the mask AP of perfect detections whose masks are as coarse as a network's."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from solo_dist.config import MASK_STRIDE
from solo_dist.data import geometry
from solo_dist.inference.coco_metrics import CocoEvaluator
from solo_dist.inference.coco_results import Result, encode_masks
from solo_dist.masks import rle as runs
from solo_dist.masks.paste import paste_masks
from solo_dist.solo import targets


def ceiling_at_quarter_resolution(
    annotations: str | dict[str, Any], canvas: tuple[int, int], mask_threshold: float = 0.5, mask_target: str = "bits"
) -> dict[str, float]:
    """The metrics of perfect detections whose masks have the resolution of the mask features.

    Every instance is taken through the geometry of the shards, reduced to a quarter (quirk 2), pasted back as
    predictions are, and scored 1. A network with this canvas cannot be expected to reach more.

    Args:
      annotations: path of the COCO json, or the json itself.
      canvas: H, W that images are fitted into.
      mask_threshold: of the pasted masks.
      mask_target: bits or coverage, what the network learns (`LossConfig.mask_target`).
    """
    evaluator, reduce = CocoEvaluator(annotations), _reducer(canvas, mask_target)
    entries_of: dict[int, list[dict[str, Any]]] = {}
    for entry in evaluator.annotations["annotations"]:
        if not entry["iscrowd"]:
            entries_of.setdefault(entry["image_id"], []).append(entry)
    for image in evaluator.annotations["images"]:
        perfect = _perfect_results(image, entries_of.get(image["id"], []), reduce, mask_threshold)
        evaluator.add(perfect, [image["id"]])
    return evaluator.metrics()


def _reducer(canvas: tuple[int, int], mask_target: str) -> Any:
    """Traced function: runs, their m, size int32 [2] -> float32 [m,h,w] at a quarter, size on the canvas."""
    reduced = targets.mask_coverage if mask_target == "coverage" else targets.reduced_masks
    column, pair = tf.TensorSpec([None], tf.int32), tf.TensorSpec([2], tf.int32)

    @tf.autograph.experimental.do_not_convert
    def reduce(instances: runs.Runs, count: tf.Tensor, original: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        placement = geometry.whole_image(original, canvas)
        moved, _ = geometry.move_instances(instances, tf.zeros([count, 4]), original, placement)
        return targets.mask_values(reduced(moved, count, canvas), canvas[1] // MASK_STRIDE), placement.size

    return tf.function(reduce, input_signature=[runs.Runs(*[column] * 4), tf.TensorSpec([], tf.int32), pair])


def _perfect_results(
    image: Mapping[str, Any], entries: list[dict[str, Any]], reduce: Any, mask_threshold: float
) -> list[Result]:
    if not entries:
        return []
    original = (image["height"], image["width"])
    rles = [runs.segmentation_to_rle(entry["segmentation"], *original) for entry in entries]
    instances = runs.from_numpy([runs.rle_to_runs(rle) for rle in rles])
    quarter, size = reduce(instances, len(entries), original)
    masks = paste_masks(quarter.numpy(), tuple(size.numpy()), original, mask_threshold)
    return [
        {"image_id": image["id"], "category_id": entry["category_id"], "score": 1.0, "segmentation": rle}
        for entry, rle in zip(entries, encode_masks(masks), strict=True)
    ]
