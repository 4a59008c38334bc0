"""Sends the curves and the recipe of a run to an MLflow server, during the training or after it.

    mlflow server --port=5000
    solo-dist track --workdir=runs/mine --to=mlflow --uri=http://127.0.0.1:5000
    solo-dist track --workdir=gs://bucket/run --to=mlflow --every=60

What the server has already is not sent again, so the command can be repeated, and with --every it goes on until it is
interrupted. Without --uri, the variable MLFLOW_TRACKING_URI has the address.
"""

import time

from absl import flags

from solo_dist import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory, a path or URL.", required=True)
_TO = flags.DEFINE_enum("to", None, ["mlflow"], "Program that shows the curves.", required=True)
_URI = flags.DEFINE_string("uri", "", "Address of the server; empty: MLFLOW_TRACKING_URI.")
_EXPERIMENT = flags.DEFINE_string("experiment", "solo_dist", "Experiment that the run is a part of.")
_EVERY = flags.DEFINE_float("every", 0, "Seconds after which to look for new values again; 0: look once.", 0)


def main(arguments: list[str]) -> None:
    """Sends what is new, once or until interrupted."""
    del arguments
    from solo_dist.reporting.mlflow_tracker import MlflowTracker

    tracker = MlflowTracker(_URI.value, _EXPERIMENT.value)
    while True:
        print(f"{tracker.send(_WORKDIR.value)} new values of {_WORKDIR.value} sent to {_TO.value}", flush=True)
        if not _EVERY.value:
            return
        time.sleep(_EVERY.value)


if __name__ == "__main__":
    cli.run(main)
