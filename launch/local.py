"""Runs `solo-dist launch`; in a checkout also python -m launch.local."""

import sys

from solo_dist.__main__ import run_command

if __name__ == "__main__":
    run_command("launch", sys.argv[1:])
