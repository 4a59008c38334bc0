"""Whole post-processing of one 800x1216 image with several hundred candidates, up to masks at that size."""

import numpy as np
import tensorflow as tf

from solo_dist.benchmarks.timing import Options, alternate, ratio, report, yardstick
from solo_dist.config import ModelConfig, PostprocessConfig
from solo_dist.masks.paste import paste_masks
from solo_dist.solo.nms import points_nms
from solo_dist.solo.postprocess import detect

CANVAS, CHANNELS, CATEGORIES, PLANTED = (800, 1216), 256, 80, 700
MODEL, CONFIG = ModelConfig(), PostprocessConfig()
GRID = MODEL.grid


def run(options: Options) -> dict[str, float]:
    """The time in units, for masks like objects and masks of noise all over the image; the official code takes 33."""
    unit = yardstick()
    compiled = tf.function(lambda outputs: detect(outputs, MODEL, CONFIG, compiled=True), autograph=False)

    def process(outputs: dict[str, tf.Tensor]) -> np.ndarray:
        found = compiled(outputs)
        probabilities = found["mask_probabilities"][0, : int(found["count"][0])].numpy()
        return paste_masks(probabilities, CANVAS, CANVAS, CONFIG.mask_threshold)

    objects, noise = _outputs(_ellipses()), _outputs(_noise())
    scores = points_nms(tf.sigmoid(objects["category_logits"]), GRID)
    candidates = int(tf.math.count_nonzero(scores > CONFIG.score_threshold))
    print(f"  {candidates} candidates, {len(process(objects))} detections")
    seconds = alternate(
        {"objects": lambda: process(objects), "noise": lambda: process(noise), "unit": unit}, options.rounds
    )
    report(seconds)
    return {"units": ratio(seconds, "objects", "unit"), "noise_units": ratio(seconds, "noise", "unit")}


def _ellipses() -> np.ndarray:
    """Mask features float32 [h,w,E]: above 0 inside an ellipse, a different one in each channel."""
    random = np.random.default_rng(0)
    height, width = CANVAS[0] // 4, CANVAS[1] // 4
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    features = np.empty([height, width, CHANNELS], np.float32)
    for channel in range(CHANNELS):
        y, x, radius_y, radius_x = random.uniform([0, 0, 5, 5], [height, width, 60, 60])
        features[..., channel] = np.clip(3 * (1 - ((ys - y) / radius_y) ** 2 - ((xs - x) / radius_x) ** 2), -4, 4)
    return features


def _noise() -> np.ndarray:
    shape = [CANVAS[0] // 4, CANVAS[1] // 4, CHANNELS]
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _outputs(features: np.ndarray) -> dict[str, tf.Tensor]:
    """Outputs of a network that predicts the masks of the feature channels at PLANTED random cells."""
    random = np.random.default_rng(0)
    kernels = random.normal(size=[GRID.num_cells, CHANNELS], scale=1e-3).astype(np.float32)
    logits = np.full([GRID.num_cells, CATEGORIES], -6, np.float32)
    for cell in random.permutation(GRID.num_cells)[:PLANTED]:
        channel = random.integers(CHANNELS)
        kernels[cell, channel] += 2
        logits[cell, channel % CATEGORIES] = random.uniform(-1.5, 3)
    outputs = {"category_logits": logits, "kernels": kernels, "mask_features": features}
    return {name: tf.constant(value[None]) for name, value in outputs.items()}
