"""Runs `solo-dist import-weights`; in a checkout also python -m tools.import_weights."""

import sys

from solo_dist.__main__ import run_command

if __name__ == "__main__":
    run_command("import-weights", sys.argv[1:])
