"""Matrix NMS of 500 masks at 200x304, of three categories."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from solo_dist.benchmarks.timing import Options, alternate, ratio, report, yardstick
from solo_dist.solo.nms import mask_ious, matrix_nms

MASKS, HEIGHT, WIDTH, CATEGORIES = 500, 200, 304, 3


def run(options: Options) -> dict[str, float]:
    """The time in units, as XLA compiles it and without XLA; the official PyTorch code takes 2.0."""
    random = np.random.default_rng(0)
    masks = tf.constant(random.integers(0, 256, [MASKS, HEIGHT * WIDTH // 8]), tf.uint8)
    categories = tf.constant(random.integers(0, CATEGORIES, MASKS), tf.int32)
    scores = tf.constant(np.sort(random.uniform(size=MASKS))[::-1], tf.float32)

    def nms(compiled: bool) -> Callable[[], object]:
        function = tf.function(
            lambda m, c, s: matrix_nms(mask_ious(m, compiled), c, s, "gaussian", 2.0), autograph=False
        )
        return lambda: function(masks, categories, scores).numpy()

    cases = {"nms": nms(True), "nms without XLA": nms(False), "unit": yardstick()}
    seconds = alternate(cases, 4 * options.rounds)
    report(seconds)
    return {"units": ratio(seconds, "nms", "unit"), "units_without_xla": ratio(seconds, "nms without XLA", "unit")}
