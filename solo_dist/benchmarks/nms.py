"""Matrix NMS of 500 masks at 200x304, of three categories."""

import numpy as np
import tensorflow as tf

from solo_dist.benchmarks.timing import Options, alternate, ratio, report, yardstick
from solo_dist.solo.nms import matrix_nms

MASKS, HEIGHT, WIDTH, CATEGORIES = 500, 200, 304, 3


def run(options: Options) -> dict[str, float]:
    """In units; the official PyTorch code takes 2.0."""
    random = np.random.default_rng(0)
    masks = tf.constant(random.integers(0, 256, [MASKS, HEIGHT * WIDTH // 8]), tf.uint8)
    categories = tf.constant(random.integers(0, CATEGORIES, MASKS), tf.int32)
    scores = tf.constant(np.sort(random.uniform(size=MASKS))[::-1], tf.float32)
    nms = tf.function(lambda m, c, s: matrix_nms(m, c, s, "gaussian", 2.0), autograph=False)
    seconds = alternate(
        {"nms": lambda: nms(masks, categories, scores).numpy(), "unit": yardstick()}, 4 * options.rounds
    )
    report(seconds)
    return {"units": ratio(seconds, "nms", "unit")}
