"""Ends a process that makes no progress, with every thread's stack in the log.

    with Watchdog(seconds=900) as watchdog:
        for step in ...:
            train_step()
            watchdog.beat()

A collective whose peer was stopped or cut off can wait for ever. The watchdog then prints all stacks to stderr and
leaves with EXIT_WATCHDOG; the launcher kills what is left of the job and starts it again from the last checkpoint.
"""

import faulthandler
import os
import threading

from solo_dist.distributed.exit_codes import EXIT_WATCHDOG

_STDERR = 2  # the file descriptor: faulthandler needs no more, and it is there without sys.stderr
_TICKS = 50
_GIL_FACTOR = 2.0


class Watchdog:
    """Counts ticks of a thread since the last beat and exits after the limit.

    Ticks are counted, not seconds: a process that was itself stopped and continued (SIGSTOP, a suspended machine) has
    not ticked meanwhile and gets its time. A thread needs the interpreter; where the main thread never gives it back,
    faulthandler's own C thread ends the process (exit code 1) after twice the limit.
    """

    def __init__(self, seconds: float):
        """Takes the limit between two beats in seconds; 0: never exits."""
        self._seconds = seconds
        self._beats = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        if self._seconds > 0:
            self._arm()  # at once: the thread may never get the interpreter
            self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._thread:
            self._stop.set()
            self._thread.join()

    def beat(self) -> None:
        """Tells the watchdog that a step, a batch of an evaluation or a part of a save is finished."""
        self._beats += 1

    def _run(self) -> None:
        seen, ticks = self._beats, 0
        try:
            while not self._stop.wait(self._seconds / _TICKS):
                self._arm()
                seen, ticks = self._beats, ticks + 1 if self._beats == seen else 0
                if ticks >= _TICKS:
                    self._exit()
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        faulthandler.dump_traceback_later(self._seconds * _GIL_FACTOR, exit=True, file=_STDERR)

    def _exit(self) -> None:
        try:
            os.write(_STDERR, f"Watchdog: no progress for {self._seconds:g} s. The stacks of all threads:\n".encode())
            faulthandler.dump_traceback(_STDERR, all_threads=True)
            os.write(_STDERR, f"Watchdog: exiting with code {EXIT_WATCHDOG}; launchers start the job again.\n".encode())
        finally:  # a full disk or a reader that is gone can keep from writing, not from leaving
            os._exit(EXIT_WATCHDOG)
