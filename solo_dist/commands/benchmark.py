r"""Measures each part of the system on this machine, in ratios that compare across machines.

    solo-dist benchmark --what=input --data=DIR_WITH_INSTANCES_JSON_AND_IMAGES
    solo-dist benchmark --what=input --data=gs://mine/shards/train
    solo-dist benchmark --what=step --what=nms --json=benchmark.json
    solo-dist benchmark --what=all --rounds=9
    solo-dist benchmark --what=memory --config=solov2_r50_fpn_3x --memory_gb=6

The cases of a part take turns, and their median times are compared. A unit is the time of one 3x3 convolution of
19.3 GFLOP on the same machine (solo_dist/benchmarks/timing.py). Close other programs first.
"""

import importlib
import json

from absl import flags
from ml_collections import config_flags

from solo_dist import cli

PARTS = ("sharding", "input", "targets", "loss", "step", "postprocess", "nms", "evaluation", "scaling", "memory")
"""Modules of solo_dist/benchmarks, each with run(options) -> {name: number}."""

_WHAT = flags.DEFINE_multi_enum("what", ["all"], ["all", *PARTS], "What to measure.")
_JSON = flags.DEFINE_string("json", "", "File to write the numbers to, as JSON.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns that each case takes.", lower_bound=1)
_DATA = flags.DEFINE_string("data", "", "Folder with instances.json and images/, or of shards; empty: images are made.")
_READERS = flags.DEFINE_integer(
    "readers", 0, "Images read at a time, if --data is a folder of shards; 0: as the trainer does.", lower_bound=0
)
_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, for --what=memory.", lock_config=True)
_MEMORY = flags.DEFINE_float(
    "memory_gb", 0.0, "Memory that the recipe has to fit into, for --what=memory; 0: any.", lower_bound=0.0
)


def main(arguments: list[str]) -> None:
    """Runs the parts one after another."""
    del arguments
    from solo_dist.benchmarks.timing import Options
    from solo_dist.storage import file_io

    options = Options(_ROUNDS.value, _DATA.value, _READERS.value, _CONFIG.value, _MEMORY.value)
    results = {}
    for part in PARTS if "all" in _WHAT.value else _WHAT.value:
        print(f"{part}:")
        results[part] = importlib.import_module(f"solo_dist.benchmarks.{part}").run(options)
        for name, value in results[part].items():
            print(f"  {part}.{name} = {value:.4g}")
    if _JSON.value:
        file_io.write(_JSON.value, json.dumps(results, indent=2).encode())


if __name__ == "__main__":
    cli.run(main)
