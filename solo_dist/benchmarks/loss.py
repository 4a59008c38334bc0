"""The mask loss on positives only, compared with the dense formulation of published TensorFlow ports.

Forward and backward pass of two images of 512x512 with 256 channels and 64 positives each. Dense means a mask channel
for every one of the 3,728 cells of grids 40, 36, 24 and 16, with a target of the same size.

    python -m solo_dist.benchmarks.loss dense     # one case alone, for its time and peak memory
"""

import statistics
import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from solo_dist.benchmarks.timing import Options, alternate, peak_kilobytes, ratio, report, run_python
from solo_dist.config import MASK_STRIDE, GridConfig
from solo_dist.solo.losses import DICE_EPSILON, mask_dice_sum
from solo_dist.solo.mask_map import MaskMap

BATCH, SIDE, CHANNELS, POSITIVES, INSTANCES = 2, 128, 256, 64, 20
GRID = GridConfig(levels=("p2", "p3", "p4", "p5"), sizes=(40, 36, 24, 16), scale_ranges=((1, 2048),) * 4)
CALLS = 9
CASES = ("dense", "sparse", "sparse compiled")


def run(options: Options) -> dict[str, float]:
    """Ratios of time and of peak memory beyond the inputs: dense over sparse.

    Each turn is a process of its own: the 2 GB of the dense case would leave caches and the allocator in a state that
    slows the case after it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    megabytes: dict[str, float] = {}
    for _ in range(options.rounds):
        for name in CASES:
            median, megabytes[name] = _in_fresh_process(name)
            seconds[name].append(median)
    report(seconds)
    for name, value in megabytes.items():
        print(f"  {name:<28}{value:12.1f} MB beyond the inputs")
    return {
        "dense_vs_sparse": ratio(seconds, "dense", "sparse"),
        "dense_vs_sparse_memory": megabytes["dense"] / megabytes["sparse"],
        "dense_vs_compiled": ratio(seconds, "dense", "sparse compiled"),
        "dense_vs_compiled_memory": megabytes["dense"] / megabytes["sparse compiled"],
    }


def make_case(name: str) -> Callable[[], object]:
    """Makes the inputs of a case; the function does one forward and backward pass."""
    random = np.random.default_rng(0)
    features = tf.random.normal([BATCH, SIDE, SIDE, CHANNELS])
    kernels = 0.05 * tf.random.normal([BATCH, GRID.num_cells, CHANNELS])
    cells = np.stack([random.permutation(GRID.num_cells)[:POSITIVES] for _ in range(BATCH)]).astype(np.int32)
    loss = _dense_loss(cells) if name == "dense" else _sparse_loss(cells, random)

    def step(features: tf.Tensor, kernels: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch([features, kernels])
            value = loss(features, kernels)
        return value, tape.gradient(value, [features, kernels])

    compiled = tf.function(step, jit_compile=name.endswith("compiled"), autograph=False)
    return lambda: compiled(features, kernels)[0].numpy()


def _sparse_loss(cells: np.ndarray, random: np.random.Generator) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    instances = tf.constant(random.integers(0, INSTANCES, cells.shape), tf.int32)
    masks = tf.constant(random.integers(0, 256, [BATCH, INSTANCES, SIDE, SIDE // 8]), tf.uint8)
    positives = tf.constant(cells)
    weight = 1 / cells.size
    return lambda features, kernels: (
        mask_dice_sum(MaskMap(0, MASK_STRIDE, (features,), (kernels,)), positives, instances, masks, weight).loss
    )


def _dense_loss(cells: np.ndarray) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    # Channels last: the layout of the result of a 1x1 convolution with one kernel for each cell.
    masks = tf.cast(tf.random.uniform([BATCH, SIDE * SIDE, GRID.num_cells], maxval=5, dtype=tf.int32) == 0, tf.uint8)
    positive = np.zeros([BATCH, GRID.num_cells], bool)
    np.put_along_axis(positive, cells, True, axis=1)

    def loss(features: tf.Tensor, kernels: tf.Tensor) -> tf.Tensor:
        logits = tf.matmul(tf.reshape(features, [BATCH, -1, CHANNELS]), kernels, transpose_b=True)
        probability, target = tf.sigmoid(logits), tf.cast(masks, tf.float32)
        overlap = tf.reduce_sum(probability * target, axis=1)
        squares = tf.reduce_sum(probability**2, axis=1) + tf.reduce_sum(target, axis=1) + 2 * DICE_EPSILON
        return tf.reduce_mean(tf.boolean_mask(1.0 - 2.0 * overlap / squares, positive))

    return loss


def _in_fresh_process(name: str) -> tuple[float, float]:
    seconds, megabytes = run_python("-m", "solo_dist.benchmarks.loss", *name.split()).split()[-2:]
    return float(seconds), float(megabytes)


def _main() -> None:
    """Prints the median seconds of a pass, and by how many megabytes the peak memory grows beyond the inputs."""
    case = make_case(" ".join(sys.argv[1:]))
    before = peak_kilobytes()
    turns = alternate({"case": case}, CALLS)["case"]
    print(statistics.median(turns), (peak_kilobytes() - before) / 1024)


if __name__ == "__main__":
    _main()
