"""Command-line tools around the trainer: thin scripts, run as `python -m tools.NAME`."""
