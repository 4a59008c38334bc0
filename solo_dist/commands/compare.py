"""Puts runs side by side on one page: what differs in their recipes, AP, time to AP, speed, curves.

    solo-dist compare runs/a runs/b
    solo-dist compare runs/* gs://bucket/run --output=comparisons/first

Writes OUTPUT/index.html, which opens from a disk without a network, and comparison.json and comparison.csv beside it.
"""

from absl import flags

from solo_dist import cli

_OUTPUT = flags.DEFINE_string("output", "comparison", "Folder for the page, a path or URL.")


def main(arguments: list[str]) -> None:
    """Writes the comparison and prints its path."""
    from solo_dist.reporting.compare import write_comparison

    print(f"Comparison: {write_comparison(arguments[1:], _OUTPUT.value)}")


if __name__ == "__main__":
    cli.run(main, positional=True)
