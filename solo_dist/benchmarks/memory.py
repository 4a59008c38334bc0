"""The peak memory of a training step by micro-batch and precision, and which flags fit into a given memory.

With --config it prints a table for that recipe on one device; without it, how accumulation and recomputation change the
memory of the official R50 3x model at 512x512. Measured is the memory of the GPU, or of the process if there is no GPU.
Every case is a fresh process.

    solo-dist benchmark --what=memory --config=solov2_r50_fpn_3x --memory_gb=6
"""

import dataclasses
import json
import signal
import subprocess
import sys
from typing import NamedTuple

import tensorflow as tf

from solo_dist import recipes
from solo_dist.benchmarks.timing import Options, peak_kilobytes, resident_kilobytes
from solo_dist.benchmarks.training import make_step
from solo_dist.config import Config
from solo_dist.solo.network import build_model
from solo_dist.training.memory import images_that_fit_into

PRECISIONS = ("float32", "bfloat16", "float16")
ACCUMULATION = 8
STEPS = 2


class Peak(NamedTuple):
    """Gigabytes (10^9)."""

    total: float
    """Peak of the GPU, or of the process if there is no GPU."""
    step: float
    """Peak beyond what network, optimizer, the sum of accumulated gradients and the prepared graph take."""


def run(options: Options) -> dict[str, float]:
    """Gigabytes by precision and micro-batch, or the two ratios."""
    return _ratios() if options.config is None else _table(options.config, options.memory_gigabytes)


def _ratios() -> dict[str, float]:
    config = recipes.get("solov2_r50_fpn_3x")
    config.data.canvas, config.model.num_categories = (512, 512), 80
    saving = dataclasses.replace(config, train=dataclasses.replace(config.train, recompute="all"))
    cases = {"one image": (config, 1), "accumulated": (config, ACCUMULATION), "recompute=all": (saving, 1)}
    peaks = {name: _require(name, measure(case, 1, accumulation)) for name, (case, accumulation) in cases.items()}
    for name, peak in peaks.items():
        print(f"  {name:<28}{peak.step:10.2f} GB for the step   {peak.total:10.2f} GB in all")
    plain = peaks["one image"]
    return {
        f"accumulation_{ACCUMULATION}_vs_1": peaks["accumulated"].step / plain.step,
        f"accumulation_{ACCUMULATION}_vs_1_in_all": peaks["accumulated"].total / plain.total,
        "recompute_all_vs_none": peaks["recompute=all"].step / plain.step,
        "recompute_all_vs_none_in_all": peaks["recompute=all"].total / plain.total,
    }


def _table(config: Config, gigabytes: float) -> dict[str, float]:
    config.model.num_categories = config.model.num_categories or 80
    share = config.train.global_batch
    sizes = [size for size in range(1, share + 1) if share % size == 0]
    limit = f"{gigabytes:g} GB" if gigabytes else "no limit: --memory_gb=6 recommends what to set"
    print(f"  {config.name}, canvas {config.data.canvas}, recompute={config.train.recompute}; {limit}")
    print(f"  {'precision':<12}{'micro_batch':>12}{'GB':>10}{'of it the step':>17}")
    results: dict[str, float] = {}
    advice = []
    for precision in PRECISIONS:
        fitting = 0
        for size in sizes:
            peak = measure(_with_precision(config, precision), size)
            print(
                f"  {precision:<12}{size:>12}" + (f"{peak.total:10.2f}{peak.step:17.2f}" if peak else "  out of memory")
            )
            if peak:
                results[f"gigabytes_{precision}_{size}"] = peak.total
            if peak is None or gigabytes and peak.total > gigabytes:
                break
            fitting = size
        advice.append(_advice(precision, fitting, share))
    if gigabytes:
        print(f"  For {gigabytes:g} GB and a global batch of {share} on one device:", *advice, sep="\n    ")
        print(f"  auto would take {_automatic(config, gigabytes)} images at a time in {config.runtime.precision}.")
    return results


def _advice(precision: str, fitting: int, share: int) -> str:
    if not fitting:
        return f"{precision}: does not fit; try --config.train.recompute=all or a smaller --config.data.canvas"
    flags = f"--config.runtime.precision={precision} --config.train.micro_batch={fitting}"
    return f"{flags}  ({share // fitting} accumulated micro-batches)"


def _automatic(config: Config, gigabytes: float) -> int:
    model = build_model(config.model, config.data.canvas, config.train.recompute)
    return images_that_fit_into(gigabytes * 1e9, model, config.data.canvas, config.train.global_batch)


def _with_precision(config: Config, precision: str) -> Config:
    return dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, precision=precision))


def measure(config: Config, micro_batch: int, accumulation: int = 1) -> Peak | None:
    """The peak of a few steps in a fresh process; None if memory does not suffice."""
    case = json.dumps({"config": config.to_json(), "micro_batch": micro_batch, "accumulation": accumulation})
    command = [sys.executable, "-m", "solo_dist.benchmarks.memory"]
    done = subprocess.run(command, input=case, capture_output=True, text=True)
    if done.returncode == -signal.SIGKILL or "ResourceExhaustedError" in done.stderr:
        return None
    if done.returncode:
        raise RuntimeError(f"Measuring {config.name} with {micro_batch} images failed:\n{done.stderr[-2000:]}")
    return Peak(*json.loads(done.stdout.splitlines()[-1]))


def _require(name: str, peak: Peak | None) -> Peak:
    if peak is None:
        raise RuntimeError(f"Not enough memory for the case {name!r}.")
    return peak


def _main() -> None:
    case = json.load(sys.stdin)
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    step = make_step(Config.from_json(case["config"]), case["micro_batch"], case["accumulation"])
    before = tf.config.experimental.get_memory_info("GPU:0")["current"] if on_gpu else resident_kilobytes() * 1024
    for _ in range(STEPS):
        step()
    peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] if on_gpu else peak_kilobytes() * 1024
    print(json.dumps([peak / 1e9, (peak - before) / 1e9]))


if __name__ == "__main__":
    _main()
