"""Ends a process that makes no progress, and prints the stack of every thread.

    with Watchdog(seconds=900) as watchdog:
        for step in ...:
            train_step()
            watchdog.beat()

A collective can wait endlessly if another worker hangs or loses its network. The watchdog then prints all stacks to
stderr and exits with EXIT_WATCHDOG; the launcher kills the rest of the job and restarts it from the last checkpoint.
"""

import faulthandler
import os
import threading

from solo_dist.distributed.exit_codes import EXIT_WATCHDOG

_STDERR = 2  # the file descriptor is all that faulthandler needs, and is there without sys.stderr
_TICKS = 50
_GIL_FACTOR = 2.0


class Watchdog:
    """Counts ticks of a thread since the last beat and exits after the limit.

    It counts ticks and not seconds, because a process that is stopped and continued (SIGSTOP, a suspended machine) has
    made no progress meanwhile, and no ticks either. The thread needs the interpreter's lock. If the main thread never
    releases the lock, the C thread of faulthandler ends the process (exit code 1) after twice the limit.
    """

    def __init__(self, seconds: float):
        """Takes the limit between two beats in seconds; 0: never exits."""
        self._seconds = seconds
        self._beats = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        if self._seconds > 0:
            self._arm()  # at once: the thread may never get the lock of the interpreter
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
        finally:  # writing can fail (a full disk, a closed pipe); the process must exit all the same
            os._exit(EXIT_WATCHDOG)
