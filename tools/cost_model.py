"""Runs `solo-dist cost-model`; in a checkout also python -m tools.cost_model."""

import sys

from solo_dist.__main__ import run_command

if __name__ == "__main__":
    run_command("cost-model", sys.argv[1:])
