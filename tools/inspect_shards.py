"""Runs `solo-dist inspect`; in a checkout also python -m tools.inspect_shards."""

import sys

from solo_dist.__main__ import run_command

if __name__ == "__main__":
    run_command("inspect", sys.argv[1:])
