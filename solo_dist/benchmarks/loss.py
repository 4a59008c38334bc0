"""The mask loss on positives only, compared with the dense formulation of published code, for members of the family.

Forward and backward pass of two images of 512x512 with 64 positives each, from the outputs of the network on. Dense
means a mask channel for every cell, with a target of the same size. SOLOv2 has 3,728 cells on grids of 40, 36, 24 and
16, and 256 mask features; SOLO, with as many features, and Decoupled SOLO have one grid of 12 more, and every level has
its own resolution.

    python -m solo_dist.benchmarks.loss solov2 dense     # one case alone, for its time and peak memory
"""

import statistics
import sys
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from solo_dist.benchmarks.timing import Options, alternate, peak_kilobytes, ratio, report, run_python
from solo_dist.config import GridConfig
from solo_dist.solo.family import MEMBERS
from solo_dist.solo.losses import DICE_EPSILON, mask_dice_sum
from solo_dist.solo.mask_map import MaskMap

BATCH, SIDE, CHANNELS, POSITIVES, INSTANCES = 2, 128, 256, 64, 20
GRIDS = {
    "solov2": GridConfig(levels=("p2", "p3", "p4", "p5"), sizes=(40, 36, 24, 16), scale_ranges=((1, 2048),) * 4),
    "solo": GridConfig(),
    "decoupled_solo": GridConfig(),
}
# Size of the mask features of each level, at strides 4, 4, 8, 16, 16.
LEVEL_SIDES = {"p2": SIDE, "p3": SIDE, "p4": SIDE // 2, "p5": SIDE // 4, "p6": SIDE // 4}
CALLS = 9
CASES = {
    "solov2": ("dense", "sparse", "sparse compiled"),
    "solo": ("dense", "sparse"),
    "decoupled_solo": ("dense", "sparse"),
}


def run(options: Options) -> dict[str, float]:
    """Ratios of time and of peak memory beyond the inputs: dense over sparse. Those without a prefix are SOLOv2's.

    Each turn is a process of its own: the 2 GB of the dense case would leave caches and the allocator in a state that
    slows the case after it.
    """
    results: dict[str, float] = {}
    for member, forms in CASES.items():
        seconds: dict[str, list[float]] = {form: [] for form in forms}
        megabytes: dict[str, float] = {}
        for _ in range(options.rounds):
            for form in forms:
                median, megabytes[form] = _in_fresh_process(member, form)
                seconds[form].append(median)
        print(f"  {member}")
        report(seconds)
        for form, value in megabytes.items():
            print(f"  {form:<28}{value:12.1f} MB beyond the inputs")
        prefix = "" if member == "solov2" else f"{member}_"
        for form in forms[1:]:
            name = f"{prefix}dense_vs_{form.split()[-1]}"
            results[name] = ratio(seconds, "dense", form)
            results[f"{name}_memory"] = megabytes["dense"] / megabytes[form]
    return results


def make_case(member: str, form: str) -> Callable[[], object]:
    """Makes the inputs of a case; the function does one forward and backward pass."""
    random, grid = np.random.default_rng(0), GRIDS[member]
    outputs = _random_outputs(member, grid)
    cells = np.sort([random.permutation(grid.num_cells)[:POSITIVES] for _ in range(BATCH)]).astype(np.int32)
    make_loss = _dense_loss if form == "dense" else _sparse_loss
    losses = [make_loss(mask_map, cells, random) for mask_map in MEMBERS[member].mask_maps(outputs, grid)]

    def step(outputs: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, object]:
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            maps = MEMBERS[member].mask_maps(outputs, grid)
            value = tf.add_n([loss(mask_map) for loss, mask_map in zip(losses, maps, strict=True)])
        return value, tape.gradient(value, outputs)

    compiled = tf.function(step, jit_compile=form.endswith("compiled"), autograph=False)
    return lambda: compiled(outputs)[0].numpy()


def _random_outputs(member: str, grid: GridConfig) -> dict[str, tf.Tensor]:
    if member == "solov2":
        shapes = {"mask_features": (SIDE, SIDE, CHANNELS), "kernels": (grid.num_cells, CHANNELS)}
    elif member == "solo":
        levels = zip(grid.levels, grid.sizes, strict=True)
        shapes = {f"kernels_{level}": (size * size, CHANNELS + 1) for level, size in levels}
        shapes |= {f"mask_features_{level}": (side, side, CHANNELS + 1) for level, side in LEVEL_SIDES.items()}
    else:
        shapes = {
            f"mask_{axis}_{level}": (LEVEL_SIDES[level], LEVEL_SIDES[level], size)
            for axis in "xy"
            for level, size in zip(grid.levels, grid.sizes, strict=True)
        }
    return {
        name: (0.05 if name.startswith("kernels") else 1.0) * tf.random.normal([BATCH, *shape])
        for name, shape in shapes.items()
    }


MapLoss = Callable[[MaskMap], tf.Tensor]


def _sparse_loss(mask_map: MaskMap, cells: np.ndarray, random: np.random.Generator) -> MapLoss:
    height, width = mask_map.features[0].shape[1:3]
    instances = tf.constant(random.integers(0, INSTANCES, cells.shape), tf.int32)
    masks = tf.constant(random.integers(0, 256, [BATCH, INSTANCES, height, width // 8]), tf.uint8)
    positives = tf.constant(cells)
    return lambda mask_map: mask_dice_sum(mask_map, positives, instances, masks, 1 / cells.size).loss


def _dense_loss(mask_map: MaskMap, cells: np.ndarray, random: np.random.Generator) -> MapLoss:
    del random
    height, width = mask_map.features[0].shape[1:3]
    # Channels last: the layout of the result of a 1x1 convolution with one kernel for each cell.
    shape = [BATCH, height * width, mask_map.num_cells]
    masks = tf.cast(tf.random.uniform(shape, maxval=5, dtype=tf.int32) == 0, tf.uint8)
    own = cells - mask_map.first_cell
    positive = np.stack([np.isin(np.arange(mask_map.num_cells), row) for row in own])

    def loss(mask_map: MaskMap) -> tf.Tensor:
        probability, target = _dense_probabilities(mask_map), tf.cast(masks, tf.float32)
        overlap = tf.reduce_sum(probability * target, axis=1)
        squares = tf.reduce_sum(probability**2, axis=1) + tf.reduce_sum(target, axis=1) + 2 * DICE_EPSILON
        return tf.reduce_sum(tf.boolean_mask(1.0 - 2.0 * overlap / squares, positive)) / cells.size

    return loss


def _dense_probabilities(mask_map: MaskMap) -> tf.Tensor:
    """The masks of all n cells of a map, [B,P,n]."""
    pixels = [tf.reshape(x, [BATCH, -1, x.shape[-1]]) for x in mask_map.features]
    if len(pixels) == 1:
        return tf.sigmoid(tf.matmul(pixels[0], mask_map.kernels[0], transpose_b=True))
    # Decoupled SOLO: the features are the factors, column and row of every cell.
    columns, rows = (tf.sigmoid(factor) for factor in pixels)
    return tf.reshape(columns[:, :, None] * rows[..., None], [BATCH, -1, mask_map.num_cells])


def _in_fresh_process(member: str, form: str) -> tuple[float, float]:
    seconds, megabytes = run_python("-m", "solo_dist.benchmarks.loss", member, *form.split()).split()[-2:]
    return float(seconds), float(megabytes)


def _main() -> None:
    """Prints the median seconds of a pass, and by how many megabytes the peak memory grows beyond the inputs."""
    case = make_case(sys.argv[1], " ".join(sys.argv[2:]))
    before = peak_kilobytes()
    turns = alternate({"case": case}, CALLS)["case"]
    print(statistics.median(turns), (peak_kilobytes() - before) / 1024)


if __name__ == "__main__":
    _main()
