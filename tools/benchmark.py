"""Runs `solo-dist benchmark`; in a checkout also python -m tools.benchmark."""

import sys

from solo_dist.__main__ import run_command

if __name__ == "__main__":
    run_command("benchmark", sys.argv[1:])
