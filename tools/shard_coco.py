"""Runs `solo-dist shard`; in a checkout also python -m tools.shard_coco."""

import sys

from solo_dist.__main__ import run_command

if __name__ == "__main__":
    run_command("shard", sys.argv[1:])
