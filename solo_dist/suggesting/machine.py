"""The device of this machine, and how long a network would train on it: estimates from a short measurement."""

import dataclasses
import os
import time
from typing import Any

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.models.description import describe
from solo_dist.solo.network import build_model
from solo_dist.training.memory import images_that_fit

_FORWARD_AND_BACKWARD = 3
"""Multiply-adds of a training step over those of the forward pass."""
_INEFFICIENCY = {"CPU": 1.5, "GPU": 6.0}
"""Time of a real network over that of as many multiply-adds in one large convolution, with input, loss and optimizer.
Measured on one core of a CPU; assumed for GPUs."""
_USED_SHARE = 0.8
"""Share of the minutes for training steps; the rest is for building the network, evaluation and checkpoints."""
_ROUNDS = 12


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a training on this machine can use."""

    device: str
    """Name of the GPU, or the number of CPU cores."""
    kind: str
    """GPU or CPU."""
    has_bfloat16: bool
    """Whether bfloat16 is faster than float32 on it."""
    rate: float
    """Multiply-adds a second of one large convolution."""

    def images_in(self, minutes: float, multiply_adds: float) -> float:
        """Images that can be trained on in this time, by an estimate.

        Args:
          minutes: of the whole training.
          multiply_adds: of the forward pass of an image.
        """
        seconds = multiply_adds * _FORWARD_AND_BACKWARD * _INEFFICIENCY[self.kind] / self.rate
        return minutes * 60 * _USED_SHARE / seconds


def look_at_machine() -> Machine:
    """Finds the device and measures a convolution on it."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        cores = len(os.sched_getaffinity(0))
        return Machine(f"{cores} CPU core{'s' if cores > 1 else ''}", "CPU", False, _measure())
    details = tf.config.experimental.get_device_details(gpus[0])
    capability = details.get("compute_capability", (0, 0))
    return Machine(details.get("device_name", "a GPU"), "GPU", capability >= (8, 0), _measure())


def _measure() -> float:
    """Multiply-adds a second of a 3x3 convolution of 128 channels on 64x64 pixels, in its fastest turn."""
    image, kernel = tf.random.normal([4, 64, 64, 128]), tf.random.normal([3, 3, 128, 128])
    convolve = tf.function(lambda: tf.reduce_sum(tf.nn.conv2d(image, kernel, 1, "SAME")), autograph=False)
    turns = []
    for _ in range(_ROUNDS + 1):
        started = time.perf_counter()
        convolve().numpy()
        turns.append(time.perf_counter() - started)
    return 4 * 64 * 64 * 128 * 128 * 9 / min(turns)


def build(config: Config, categories: int) -> Any:
    """The network of a recipe, with random weights."""
    model = dataclasses.replace(config.model, num_categories=categories)
    return build_model(model, config.data.canvas, config.train.recompute)


def multiply_adds(model: Any, canvas: tuple[int, int]) -> int:
    """Multiply-adds of the forward pass of an image of the canvas H, W."""
    return sum(part.multiply_adds for part in describe(model, canvas))


def fitting_images(model: Any, config: Config) -> int:
    """Images of a batch that fit into the memory of this machine at a time, as train.micro_batch=auto will choose."""
    return images_that_fit(model, config.data.canvas, config.train.global_batch, 1)
