"""Runs `solo-dist inspect-model`; in a checkout also python -m tools.inspect_model."""

import sys

from solo_dist.__main__ import run_command

if __name__ == "__main__":
    run_command("inspect-model", sys.argv[1:])
