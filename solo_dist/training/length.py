"""The length of a run: `train.steps`, or as many steps as `train.minutes` have room for at the measured speed.

The steps that measure the speed leave no trace: the state is put back, and the run begins with the images that they
have seen. So a run of `train.minutes` that comes to N steps computes what a run of `train.steps=N` computes.
"""

import logging
import time
from collections.abc import Callable

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.distributed.collectives import gather_from_workers
from solo_dist.training.build import RunParts, build_batches
from solo_dist.training.start import Start

log = logging.getLogger(__name__)

_PREPARING_CALLS = 2
"""The first call makes the graph, and the second one is slower than later ones."""
_ESTIMATING_CALLS = 3
_MEASURED_SHARE = 0.02
"""The speed is measured for this share of the time that the run has."""
_MOST_CALLS = 100


def find_length(
    config: Config, parts: RunParts, strategy: tf.distribute.Strategy, start: Start, beat: Callable[[], None]
) -> int:
    """The number of steps after which the run ends, the same on every worker and after each resume.

    Args:
      config: the config of the run.
      parts: what was built from it.
      strategy: over all workers, which call this together.
      start: where the run starts; if an earlier process has measured the length, it is known here.
      beat: called after each call that was waited for, for the watchdog.
    """
    train = config.train
    if train.steps:
        return train.steps
    if start.total_steps:
        log.info("train.minutes: %d steps, by the speed measured when the run began", start.total_steps)
        return start.total_steps
    log.info("train.minutes=%g: building the network, and measuring its speed", train.minutes)
    seconds = _seconds_a_step(config, parts, strategy, start.images, beat)
    steps = max(1, int(train.minutes * 60 / seconds))
    log.info("train.minutes=%g: %d steps of %.3f s", train.minutes, steps, seconds)
    return start.step + steps


def _seconds_a_step(
    config: Config, parts: RunParts, strategy: tf.distribute.Strategy, images_seen: int, beat: Callable[[], None]
) -> float:
    """Seconds that the slowest worker needs for a step, the same number on every worker."""
    arrays = parts.state.copy_to_host("before the speed is measured")
    batches = build_batches(config, strategy, parts.plan.replica_batch, images_seen)
    steps_per_call = tf.constant(config.train.steps_per_call)

    def seconds_of(calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            parts.train_step(batches, steps_per_call, tf.zeros([2]))
        parts.train_step.wait()
        microseconds = round((time.perf_counter() - started) * 1e6)
        beat()
        return max(gather_from_workers(strategy, microseconds)) / 1e6

    seconds_of(_PREPARING_CALLS)
    estimate = seconds_of(_ESTIMATING_CALLS) / _ESTIMATING_CALLS
    calls = round(_MEASURED_SHARE * config.train.minutes * 60 / estimate)
    calls = min(max(calls, _ESTIMATING_CALLS), _MOST_CALLS)
    seconds = seconds_of(calls) / (calls * config.train.steps_per_call)
    parts.state.restore(arrays, "the state before the speed was measured")
    parts.train_step.read_wait_seconds()
    return seconds
