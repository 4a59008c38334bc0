"""One whole training step (forward, loss, backward, optimizer) of the official R50 3x model on one 512x512 image.

The image has 10 instances; the network computes in float32. One case compiles the loss by XLA, one compiles nothing; on
a GPU a third one compiles the forward and backward pass.
"""

import dataclasses
import statistics
from collections.abc import Callable

from solo_dist import recipes
from solo_dist.benchmarks.timing import Options, alternate, ratio, report, yardstick
from solo_dist.benchmarks.training import make_step
from solo_dist.distributed.xla import compile_scope
from solo_dist.models.description import describe
from solo_dist.solo.network import build_model

CANVAS, CATEGORIES = (512, 512), 80
PASSES = 3
"""Multiply-adds of a step over those of its forward pass: gradients of inputs and of kernels take as many again, each.
This is a few percent too high, because the frozen stem and first stage have no gradients."""


def run(options: Options) -> dict[str, float]:
    """The time in units; the official PyTorch code takes 46 for forward, loss and backward."""
    config = recipes.get("solov2_r50_fpn_3x")
    config.data.canvas, config.model.num_categories = CANVAS, CATEGORIES
    parts = describe(build_model(config.model, CANVAS), CANVAS)
    multiply_adds = PASSES * sum(part.multiply_adds for part in parts)
    cases: dict[str, Callable[[], object]] = {"unit": yardstick()}
    default = compile_scope(config.runtime.compile)
    for scope in {"none": 0, "loss": 0, default: 0}:
        runtime = dataclasses.replace(config.runtime, compile=scope)
        cases[scope] = make_step(dataclasses.replace(config, runtime=runtime), 1)
    seconds = alternate(cases, options.rounds)
    report(seconds)
    units = {f"units_compile_{scope}": ratio(seconds, scope, "unit") for scope in cases if scope != "unit"}
    return {
        "units": units[f"units_compile_{default}"],
        "gigamultiply_adds_per_second": multiply_adds / statistics.median(seconds[default]) / 1e9,
        **units,
    }
