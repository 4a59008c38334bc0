"""A training step of a recipe's network on images of noise, for the benchmarks of time and memory."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from solo_dist.config import Config
from solo_dist.distributed.precision import set_precision
from solo_dist.distributed.xla import compile_scope
from solo_dist.masks import rle
from solo_dist.solo import targets
from solo_dist.solo.family import target_spec
from solo_dist.solo.network import build_model
from solo_dist.training.optim import Optimizer
from solo_dist.training.step import TrainStep

INSTANCES = 10


def make_step(config: Config, micro_batch: int, accumulation: int = 1) -> Callable[[], dict[str, float]]:
    """Builds and traces the step with random weights; the function does one optimizer step and returns its metrics.

    Args:
      config: the recipe, with num_categories set; its precision is set for the whole process.
      micro_batch: images at a time.
      accumulation: micro-batches a step.
    """
    set_precision(config.runtime.precision)
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.OneDeviceStrategy("GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0")
    with strategy.scope():
        model = build_model(config.model, config.data.canvas, config.train.recompute)
    variables = {variable.path: variable.value for variable in model.trainable_variables}
    optimizer = Optimizer(strategy, variables, config.optimizer, config.optimizer.learning_rate, config.train.steps)
    scope = compile_scope(config.runtime.compile)
    step = TrainStep(strategy, model, optimizer, config, micro_batch, accumulation, scope)
    batch = make_batch(config, micro_batch * accumulation)
    data = tf.data.Dataset.from_tensors({name: tf.constant(value) for name, value in batch.items()}).repeat()
    batches = iter(strategy.distribute_datasets_from_function(lambda _: data))
    step(batches, tf.constant(0), tf.zeros([2]))  # traces and optimises the graph before anything is measured

    def run() -> dict[str, float]:
        step(batches, tf.constant(1), tf.zeros([2]))
        return step.read_metrics()

    return run


def make_batch(config: Config, images: int) -> dict[str, np.ndarray]:
    """A training batch of images of noise, each with INSTANCES ellipses from 1/32 to half of the canvas."""
    random = np.random.default_rng(0)
    count = min(INSTANCES, config.data.max_instances)
    elements = [_make_element(config, random, count) for _ in range(images)]
    return {name: np.stack([element[name] for element in elements]) for name in elements[0]}


def _make_element(config: Config, random: np.random.Generator, instances: int) -> dict[str, np.ndarray]:
    canvas = config.data.canvas
    masks = rle.from_numpy([rle.dense_to_runs(mask) for mask in _ellipses(random, canvas, instances)])
    categories = tf.constant(random.integers(0, config.model.num_categories, instances), tf.int32)
    boxes = rle.tight_boxes(masks, instances)
    made = targets.make_targets(masks, boxes, categories, canvas, config.model.grid, target_spec(config))
    cell, instance = (values[: config.data.max_positives] for values in made.positives[:2])
    room = config.data.max_positives - tf.size(cell)
    element = {
        "image": random.integers(0, 256, [*canvas, 3]).astype(np.uint8),
        "image_size": np.array(canvas, np.int32),
        "image_id": np.int64(0),
        "category_grid": made.positives.category_grid.numpy(),
        "positive_cell": tf.pad(cell, [[0, room]], constant_values=-1).numpy(),
        "positive_instance": tf.pad(instance, [[0, room]]).numpy(),
        "masks": tf.pad(made.masks, [[0, config.data.max_instances - instances], [0, 0], [0, 0]]).numpy(),
        "dropped_positives": np.int32(0),
        "bad_records": np.int32(0),
    }
    if config.loss.federated:
        element["unknown_categories"] = np.zeros(-(-config.model.num_categories // 8), np.uint8)
    return element


def _ellipses(random: np.random.Generator, canvas: tuple[int, int], count: int) -> list[np.ndarray]:
    """Masks, bool [H, W], of sizes in a geometric progression."""
    ys, xs = np.mgrid[: canvas[0], : canvas[1]]
    short = min(canvas)
    masks = []
    for radius in np.geomspace(short / 64, short / 4, count):
        y, x = random.uniform(radius, np.array(canvas) - radius)
        masks.append(((ys - y) / radius) ** 2 + ((xs - x) / radius) ** 2 <= 1)
    return masks
