"""Timing on a shared machine: cases run in turns, medians are compared, and times are divided by that of a unit.

A part of the benchmark is a function `run(options: Options) -> dict[str, float]` in a module of its own, listed in
`PARTS` of solo_dist/commands/benchmark.py:

    seconds = alternate({"mine": lambda: mine(x), "other": lambda: other(x), "unit": yardstick()}, options.rounds)
    return {"other_vs_mine": ratio(seconds, "other", "mine"), "units": ratio(seconds, "mine", "unit")}
"""

import dataclasses
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import tensorflow as tf

from solo_dist.config import Config


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of `solo-dist benchmark`."""

    rounds: int = 5
    """Turns that each case takes."""
    data: str = ""
    """Folder with instances.json and images/, or of shards; empty: images are made."""
    readers: int = 0
    """Images of a folder of shards that are read at a time; 0: as many as the trainer does."""
    config: Config | None = None
    """Recipe whose memory is measured."""
    memory_gigabytes: float = 0.0
    """Memory that the recipe has to fit into; 0: any."""


def alternate(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each turn of each case. A first turn of each is a warm-up and does not count.

    A case must have finished its work when it returns: if it leaves TensorFlow computing, end it with `.numpy()`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: Mapping[str, list[float]], numerator: str, denominator: str) -> float:
    """Ratio of the medians of two cases."""
    return statistics.median(seconds[numerator]) / statistics.median(seconds[denominator])


def report(seconds: Mapping[str, list[float]]) -> None:
    """Prints a line a case: median, fastest and slowest turn in milliseconds."""
    for name, turns in seconds.items():
        low, middle, high = (1000 * f(turns) for f in (min, statistics.median, max))
        print(f"  {name:<28}{middle:12.3f} ms   ({low:.3f} to {high:.3f} in {len(turns)} turns)")


def run_python(*arguments: str) -> str:
    """What `python arguments` prints to stdout. Raises RuntimeError, with the end of its stderr, if it fails."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def peak_kilobytes() -> int:
    """Peak memory of this process alone; getrusage would include the peak of the parent process."""
    return _kilobytes("VmHWM")


def resident_kilobytes() -> int:
    """Memory of this process now."""
    return _kilobytes("VmRSS")


def _kilobytes(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return int(re.search(rf"{field}:\s+(\d+) kB", file.read()).group(1))  # type: ignore[union-attr]


def yardstick() -> Callable[[], object]:
    """One unit of work: a 3x3 convolution, 256 to 256 channels, on 128x128 pixels in float32 (19.3 GFLOP).

    Times in units compare across machines far better than seconds do.
    """
    image, kernel = tf.random.normal([1, 128, 128, 256]), tf.random.normal([3, 3, 256, 256])
    convolve = tf.function(lambda image, kernel: tf.nn.conv2d(image, kernel, 1, "SAME"), autograph=False)
    return lambda: convolve(image, kernel).numpy()
