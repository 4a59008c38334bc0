"""Running a command as a process of its own, so that Ctrl-C and the signals of schedulers stop it properly."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from solo_dist.distributed.launcher import FORWARDED, before_exec
from solo_dist.distributed.stop_signals import ignored_by_nohup


def say(text: str) -> None:
    """Prints a line. If nothing reads stdout any more (a closed terminal), the command continues."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


class Processes:
    """Runs commands one after another; a signal is passed on to the one that runs, and no other one is started.

    The main thread makes it, and uses it as a context manager.
    """

    def __init__(self) -> None:
        self.stopped_by: int | None = None
        """The first signal that asked to stop."""
        self._process: subprocess.Popen[bytes] | None = None
        self._passed_on = False

    def __enter__(self) -> "Processes":
        numbers = FORWARDED - ignored_by_nohup()
        self._before = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, arguments: Sequence[str]) -> int:
        """Runs `solo-dist ARGUMENTS` and returns its exit code; -N if signal N ended it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "solo_dist", *arguments],
            stdin=subprocess.DEVNULL,
            # So that Ctrl-C reaches it once, by `_on_signal`: a training that gets it twice leaves without saving.
            start_new_session=True,
            preexec_fn=before_exec(0, 0),
        )
        if self.stopped_by is not None and not self._passed_on:  # it came before there was a process
            self._process.send_signal(self.stopped_by)
        return self._process.wait()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stopped_by is None:
            self.stopped_by = number
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._passed_on = True
