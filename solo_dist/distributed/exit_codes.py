"""The exit codes of processes, and what launchers make of them.

    exit_now(EXIT_PREEMPTED)          # saved on request; start me again

The codes of this project lie between 193 and 199: above 128 + any signal number, so they cannot be confused with a
death by signal, and above 127, which Kubeflow's `restartPolicy: ExitCode` takes for "start again".

This module imports no TensorFlow; the launchers use it too.
"""

import contextlib
import logging
import os
import signal
import sys
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


def as_exit_code(code: int) -> int:
    """The code to leave with if a process has ended with `code`: 128 + N for -N, a death by signal N, as shells do."""
    return code if code >= 0 else 128 - code


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
