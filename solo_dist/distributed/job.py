"""What connects the starts of one job with its launcher: an identity that they share, and how far they got.

    job_id(os.environ)                # the same in every start of the job
    report_progress(step)             # a checkpoint of this step is complete

This module imports no TensorFlow; the launchers use it too.
"""

import logging
import os
import threading
from collections.abc import Mapping

JOB_ID_VARIABLE = "SOLO_DIST_JOB_ID"
"""Set by launchers, the same for every start of one job: lets a new start take over the lock of a killed one."""
PROGRESS_VARIABLE = "SOLO_DIST_PROGRESS_FILE"
"""Set by launchers: the local file into which `report_progress` writes."""

_JOB_ID_VARIABLES = (JOB_ID_VARIABLE, "SLURM_JOB_ID", "CLOUD_ML_JOB_ID")


def job_id(environ: Mapping[str, str]) -> str | None:
    """The identity that all starts of one job share, from the launcher or the scheduler; None outside of them."""
    return next((f"{name}={environ[name]}" for name in _JOB_ID_VARIABLES if environ.get(name)), None)


def report_progress(step: int) -> None:
    """Tells the launcher that a checkpoint of `step` is complete; does nothing if no launcher asked for it."""
    path = os.environ.get(PROGRESS_VARIABLE)
    if not path:
        return
    # storage.atomic would do this, but it imports TensorFlow and this module does not.
    temporary = f"{path}.{os.getpid()}.{threading.get_ident()}"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(str(step))
        os.replace(temporary, path)
    except OSError as error:  # not fatal: the checkpoint is complete
        logging.warning("Could not tell the launcher of step %d: %s", step, error)


def read_progress(path: str) -> int:
    """The step last reported into `path`, -1 if there was none."""
    try:
        with open(path, encoding="utf-8") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return -1
