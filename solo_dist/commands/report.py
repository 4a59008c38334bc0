"""Writes one page on what a run has learned: quality, errors, images, training, speed.

    solo-dist report --workdir=runs/shapes_tiny
    solo-dist report --workdir=runs/mine --validation=mine/shards/validation --precision=0.95
    solo-dist report --workdir=gs://bucket/run --output=reports/run --nospeed

The page is WORKDIR/report/index.html, or OUTPUT/index.html; it opens from a disk, without a network. Its numbers are in
report.json and csv files beside it. The thresholds also go into eval/step_N/metrics.json, from which
`solo-dist predict --score_threshold=best` takes the best. Evaluate first: the report reads what `solo-dist evaluate` or
the training wrote. What is missing is left out, and the page says so.
"""

from absl import flags

from solo_dist import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory, a path or URL.", required=True)
_OUTPUT = flags.DEFINE_string("output", "", "Folder for the page; empty: WORKDIR/report.")
_VALIDATION = flags.DEFINE_string("validation", "", "Shards that were evaluated; empty: data.validation of the recipe.")
_STEP = flags.DEFINE_integer("step", None, "Evaluation to report on; by default the newest.", lower_bound=0)
_PRECISION = flags.DEFINE_float("precision", 0.9, "Share of right detections for a second threshold.", 0.0, 1.0)
_SPEED = flags.DEFINE_bool("speed", True, "Measure the newest checkpoint on this machine.")


def main(arguments: list[str]) -> None:
    """Writes the report and prints its path."""
    del arguments
    from solo_dist.reporting.run_report import write_report

    path = write_report(_WORKDIR.value, _OUTPUT.value, _VALIDATION.value, _STEP.value, _PRECISION.value, _SPEED.value)
    print(f"Report: {path}")


if __name__ == "__main__":
    cli.run(main)
