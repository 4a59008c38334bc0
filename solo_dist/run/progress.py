"""The progress line of a training run: one line every N steps, readable in a log file and on a terminal."""

import contextlib
import time
from collections.abc import Iterator, Mapping


def format_duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Progress:
    """Rates between progress lines and the time that is left.

    Time spent outside training (evaluations, panels) is left out with `paused`.
    """

    def __init__(self, images_a_step: int):
        self._images = images_a_step
        self.start(0, 0)

    def start(self, step: int, total_steps: int) -> None:
        """Starts the clock of a run that continues after `step` of its `total_steps` steps."""
        self._last_step, self._total = step, total_steps
        self._training_seconds = 0.0
        self._checkpoint_seconds = 0.0
        self._mark = time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time does not count as training."""
        self._training_seconds += time.perf_counter() - self._mark
        try:
            yield
        finally:
            self._mark = time.perf_counter()

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[None]:
        """A context in which the training waits for a checkpoint."""
        started = time.perf_counter()
        yield
        self._checkpoint_seconds += time.perf_counter() - started

    def rates(self, step: int, wait_seconds: float) -> dict[str, float]:
        """images_per_second, and the shares of the time spent waiting, since the last call; restarts the clock."""
        with self.paused():
            seconds, self._training_seconds = max(self._training_seconds, 1e-9), 0.0
        checkpoint_seconds, self._checkpoint_seconds = self._checkpoint_seconds, 0.0
        steps, self._last_step = step - self._last_step, step
        self._seconds_a_step = seconds / max(steps, 1)
        return {
            "images_per_second": steps * self._images / seconds,
            "data_wait_fraction": min(1.0, wait_seconds / seconds),
            "checkpoint_wait_fraction": min(1.0, checkpoint_seconds / seconds),
        }

    def line(self, step: int, values: Mapping[str, float]) -> str:
        """The progress line; call `rates` first."""
        left = format_duration((self._total - step) * self._seconds_a_step)
        extra = "".join(
            f"  {tag} {values[tag]:.0f}" for tag in ("targets/dropped_positives", "nonfinite_steps") if values.get(tag)
        )
        return (
            f"step {step}/{self._total}  loss {values['loss/total']:.4f} (category {values['loss/category']:.4f}, "
            f"mask {values['loss/mask']:.4f})  lr {values['lr']:.2e}  grad {values['grad_norm']:.2f}  "
            f"{values['images_per_second']:.1f} images/s  data wait {values['data_wait_fraction']:.0%}  "
            f"ETA {left}{extra}"
        )
