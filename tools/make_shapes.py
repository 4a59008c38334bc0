"""Runs `solo-dist make-shapes`; in a checkout also python -m tools.make_shapes."""

import sys

from solo_dist.__main__ import run_command

if __name__ == "__main__":
    run_command("make-shapes", sys.argv[1:])
