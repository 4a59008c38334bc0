"""Mask AP on whole large images, which the model sees tile by tile."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tqdm

from solo_dist.data.image_io import DCT_METHOD
from solo_dist.data.input.in_order import read_records
from solo_dist.data.schema import Manifest
from solo_dist.data.tiling import Tiling
from solo_dist.errors import ConfigError
from solo_dist.inference.coco_metrics import CocoEvaluator
from solo_dist.inference.coco_results import results_of_image
from solo_dist.inference.detector import Detector
from solo_dist.inference.tiles import detect_in_tiles

MAX_DETECTIONS = 1000
"""Best detections that count in an image and category: COCO's 100 are few for images of many tiles."""


def evaluate_in_tiles(
    detector: Detector, manifest: Manifest, tiling: Tiling, categories: Sequence[Mapping[str, Any]]
) -> CocoEvaluator:
    """Detects in all images of a folder of shards.

    Args:
      detector: the model.
      manifest: of shards of whole images.
      tiling: size and overlap of the tiles.
      categories: of the classes, as in `coco_results.results_of_image`.
    Raises:
      ConfigError: the shards hold tiles, or images that are fitted into the canvas.
    """
    if manifest.tiling or not manifest.keep_original:
        held = "tiles" if manifest.tiling else "images fitted into the canvas"
        raise ConfigError(
            f"--tile: {manifest.folder} holds {held}; shard the validation images whole, with --keep_original and "
            "without --tile."
        )
    evaluator = CocoEvaluator(manifest.annotations, MAX_DETECTIONS)
    for record in tqdm.tqdm(read_records(manifest), total=manifest.num_images, unit=" images", desc="evaluating"):
        image = tf.io.decode_jpeg(record.image, channels=3, dct_method=DCT_METHOD).numpy()
        found = detect_in_tiles(detector, image, tiling)
        number = int(record.image_id)
        evaluator.add(results_of_image(number, found.scores, found.classes, found.masks, categories), [number])
    return evaluator
