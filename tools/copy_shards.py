"""Runs `solo-dist copy-shards`; in a checkout also python -m tools.copy_shards."""

import sys

from solo_dist.__main__ import run_command

if __name__ == "__main__":
    run_command("copy-shards", sys.argv[1:])
