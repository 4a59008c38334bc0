"""Runs `solo-dist data-service`; in a checkout also python -m tools.data_service."""

import sys

from solo_dist.__main__ import run_command

if __name__ == "__main__":
    run_command("data-service", sys.argv[1:])
