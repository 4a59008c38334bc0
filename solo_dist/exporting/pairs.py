"""How many pairs of cell and category get a mask in an export of fixed shapes: as many as validation images need."""

import numpy as np
import tensorflow as tf

from solo_dist.config import PostprocessConfig
from solo_dist.data.input.pipeline import build_dataset, load_split
from solo_dist.data.input.reader import readable_errors
from solo_dist.errors import ConfigError, DataError
from solo_dist.inference.detector import Detector, raw_outputs
from solo_dist.solo.static_postprocess import count_pairs

_STEP = 50
_BATCH = 4


def choose_pairs(detector: Detector, images: int) -> int:
    """The default of `ExportSettings.pairs`: `with_margin`, or postprocess.max_candidates without validation images.

    Args:
      detector: the model.
      images: how many to look at; the first of data.validation.
    """
    rules = detector.config.postprocess
    if not images:
        return rules.max_candidates
    try:
        return with_margin(most_pairs(detector, images), rules)
    except (ConfigError, DataError):  # the report of the export says why there are no validation images
        return rules.max_candidates


def with_margin(most: int, rules: PostprocessConfig) -> int:
    """Pairs that get a mask if no validation image needs more than `most`.

    Twice as many, as other images may need more; but not above postprocess.max_candidates unless a validation image
    needs that, and at least as many as there can be detections; rounded up to a multiple of 50.
    """
    pairs = max(most, min(2 * most, rules.max_candidates), rules.max_detections)
    return -(-pairs // _STEP) * _STEP


def most_pairs(detector: Detector, images: int) -> int:
    """Pairs above the score threshold in the one of the first validation images that has the most.

    Raises ConfigError, DataError: there are no validation shards that fit.
    """
    config = detector.config
    load_split(config, "validation")
    count = tf.function(
        lambda canvases: count_pairs(raw_outputs(detector.model, canvases), config.model, config.postprocess),
        autograph=False,
    )
    with readable_errors():
        batches = build_dataset(config, "validation", batch_size=_BATCH).take(-(-images // _BATCH))
        return max(int(np.max(count(batch["image"]))) for batch in batches)
