r"""Exports a model in all formats and shows them side by side: AP, size and time on this machine.

    solo-dist benchmark-exports --workdir=runs/mine --output=exports
    solo-dist benchmark-exports --workdir=runs/mine --output=exports --kinds=tflite --images=200 --json=exports.json

OUTPUT gets a folder for each export, as `solo-dist export` writes them. The exports take turns while they are timed,
each with one thread and with all, and so does the model itself (`model`; TensorFlow has all threads). A format that
cannot be made here, for example for want of its converter, is named with the reason. Close other programs first.
"""

import json

from absl import flags
from ml_collections import config_flags

from solo_dist import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe; by default the run's own.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory, a path or URL.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best, or the folder of a checkpoint.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder on this machine for the exports.", required=True)
_KINDS = flags.DEFINE_multi_enum(
    "kinds", ["savedmodel", "tflite", "onnx"], ["savedmodel", "tflite", "onnx"], "Formats."
)
_IMAGES = flags.DEFINE_integer("images", 50, "Validation images that the exports are compared on.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 11, "Turns that each export takes.", lower_bound=1)
_CANDIDATES = flags.DEFINE_integer("candidates", 0, "As of solo-dist export.", lower_bound=0)
_JSON = flags.DEFINE_string("json", "", "File to write the numbers to, as JSON.")


def main(arguments: list[str]) -> None:
    """Exports, compares, times and prints a table."""
    del arguments
    config = _CONFIG.value
    config.runtime.precision = "float32"  # the only one that the converters support

    from solo_dist.benchmarks.exports import KINDS, compare, format_rows
    from solo_dist.inference.detector import load_detector
    from solo_dist.storage import file_io

    detector = load_detector(_WORKDIR.value, _CHECKPOINT.value, config)
    kinds = [kind for kind in KINDS if kind[0] in _KINDS.value]
    rows = compare(detector, _OUTPUT.value.rstrip("/"), kinds, _CANDIDATES.value, _IMAGES.value, _ROUNDS.value)
    print(format_rows(rows))
    if _JSON.value:
        file_io.write(_JSON.value, json.dumps(rows, indent=2).encode())


if __name__ == "__main__":
    cli.run(main)
