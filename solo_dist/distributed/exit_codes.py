"""Messages between a training process and its launcher: exit codes, a job identity, progress.

    exit_now(EXIT_PREEMPTED)          # saved on request; start me again
    report_progress(step)             # a checkpoint of this step is complete

The codes of this project lie between 193 and 199: above 128 + any signal number, so they cannot be confused with a
death by signal, and above 127, which Kubeflow's `restartPolicy: ExitCode` takes for "start again".

This module imports no TensorFlow; the launchers use it too.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import NoReturn

EXIT_DONE = 0
"""Everything that was asked for is done."""
EXIT_USER_ERROR = 2
"""A flag, the config, the data or the workdir cannot work; starting again would fail again. Launchers stop."""
EXIT_PREEMPTED = 193
"""Asked to stop (signal or notice of preemption), saved, and left. Launchers start the job again and it resumes."""
EXIT_PEER_LOST = 194
"""Another worker died or cannot be reached. Launchers start the whole job again."""
EXIT_WATCHDOG = 195
"""No step within the watchdog's limit; the stacks are in the log. Launchers start the whole job again."""
EXIT_STORE_LOST = 196
"""An object store did not answer for a long time. Launchers start the whole job again."""

JOB_ID_VARIABLE = "SOLO_DIST_JOB_ID"
"""Set by launchers, the same for every start of one job: lets a new start take over the lock of a killed one."""
PROGRESS_VARIABLE = "SOLO_DIST_PROGRESS_FILE"
"""Set by launchers: the local file into which `report_progress` writes."""

_JOB_ID_VARIABLES = (JOB_ID_VARIABLE, "SLURM_JOB_ID", "CLOUD_ML_JOB_ID")
_MEANINGS = {
    EXIT_DONE: "done",
    EXIT_USER_ERROR: "a user's error",
    EXIT_PREEMPTED: "stopped on request after saving",
    EXIT_PEER_LOST: "lost another worker",
    EXIT_WATCHDOG: "no step within the watchdog's limit",
    EXIT_STORE_LOST: "lost the object store",
}


def describe_exit(code: int) -> str:
    """Words for an exit code; negative codes are signals, as `subprocess` gives them."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit code {code}" + (f" ({_MEANINGS[code]})" if code in _MEANINGS else "")


def is_restartable(code: int) -> bool:
    """Whether a launcher should start the job again after a worker left with this code (negative: a signal)."""
    return code not in (EXIT_DONE, EXIT_USER_ERROR)


def exit_now(code: int) -> NoReturn:
    """Ends the process at once with `code`, after flushing its output.

    An ordinary end runs the destructors of TensorFlow's server, which can wait for workers that are gone, and of
    tensorflow-io's S3 client, which abort; either would replace the exit code that launchers react to.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the launcher does not read it any more
            stream.flush()
    os._exit(code)


def job_id(environ: Mapping[str, str]) -> str | None:
    """The identity that all starts of one job share, from the launcher or the scheduler; None outside of them."""
    return next((f"{name}={environ[name]}" for name in _JOB_ID_VARIABLES if environ.get(name)), None)


def report_progress(step: int) -> None:
    """Tells the launcher that a checkpoint of `step` is complete; does nothing if no launcher asked for it."""
    path = os.environ.get(PROGRESS_VARIABLE)
    if not path:
        return
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
