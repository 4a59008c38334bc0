"""Target assignment of a crowded image: 40 instances on a canvas of 800x1216, official grids."""

import numpy as np
import tensorflow as tf

from solo_dist.benchmarks.timing import Options, alternate, ratio, report, yardstick
from solo_dist.config import GridConfig
from solo_dist.masks import rle
from solo_dist.solo import targets

CANVAS = (800, 1216)
NUM_INSTANCES = 40


def run(options: Options) -> dict[str, float]:
    """From masks as run lengths to positives, category grid and masks at 1/4, in units."""
    instances = [rle.dense_to_runs(mask) for mask in _ellipses()]
    masks = rle.from_numpy(instances)
    boxes = rle.tight_boxes(masks, NUM_INSTANCES)
    categories = tf.range(NUM_INSTANCES)
    make = tf.function(lambda *of: targets.make_targets(of[0], of[1], of[2], CANVAS, GridConfig()), autograph=False)
    seconds = alternate(
        {"targets": lambda: make(masks, boxes, categories).masks.numpy(), "unit": yardstick()}, 4 * options.rounds
    )
    report(seconds)
    return {"units": ratio(seconds, "targets", "unit")}


def _ellipses() -> list[np.ndarray]:
    """Masks, bool [H, W], of all sizes from 8 pixels to half the canvas."""
    random = np.random.default_rng(0)
    ys, xs = np.mgrid[: CANVAS[0], : CANVAS[1]]
    masks = []
    for radius in np.geomspace(4, CANVAS[0] / 4, NUM_INSTANCES):
        y, x = random.uniform(radius, np.array(CANVAS) - radius)
        masks.append(((ys - y) / radius) ** 2 + ((xs - x) / (radius * random.uniform(0.6, 1.0))) ** 2 <= 1)
    return masks
