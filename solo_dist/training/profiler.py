"""A TensorBoard profile of a few training steps."""

import contextlib
import logging
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from solo_dist.errors import ConfigError

log = logging.getLogger(__name__)


class StepProfiler(contextlib.AbstractContextManager):
    """Profiles the steps from the first named one to the last, both included; the first step of a run is step 1.

    Args:
      steps: FIRST:LAST, for example 10:15; empty: none.
      folder: of TensorBoard; the profile is written to plugins/profile in it. Empty: this worker writes no profile,
        but ends its calls at the same steps as the worker that does.

    Raises:
      ConfigError: the steps are not such a pair.
    """

    def __init__(self, steps: str, folder: str):
        self._steps, self._folder, self._running = steps, folder, False
        self._waiting = bool(steps and folder)
        self._before, self._last = -1, -1
        if not steps:
            return
        numbers = re.fullmatch(r"(\d+):(\d+)", steps)
        if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2]):
            raise ConfigError(
                f"--profile={steps} must be FIRST:LAST with FIRST at least 1 and at most LAST, for example 10:15."
            )
        self._before, self._last = int(numbers[1]) - 1, int(numbers[2])

    def steps_ahead(self, step: int) -> list[int]:
        """Numbers of steps from `step` to the start and to the end of the profile, if they are still ahead."""
        return [event - step for event in (self._before, self._last) if event > step]

    def update(self, step: int, wait: Callable[[], Any]) -> None:
        """Starts or ends the profile if that is due after `step` finished steps.

        Args:
          step: number of finished steps.
          wait: waits for the device to finish them.
        """
        if self._running and step >= self._last:
            wait()
            self._stop()
        elif self._waiting and step >= self._before:
            self._waiting = False
            if step > self._before:
                log.warning(
                    "--profile=%s: no profile is written, because the run resumes at step %d", self._steps, step
                )
                return
            wait()
            tf.profiler.experimental.start(self._folder)
            self._running = True

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self._running = False
        log.info("profile of steps %s: %s/plugins/profile", self._steps, self._folder)

    def __exit__(self, *_: object) -> None:
        if self._running:
            self._stop()
        elif self._waiting:
            log.warning("--profile=%s: no profile was written, because none of these steps was run", self._steps)
