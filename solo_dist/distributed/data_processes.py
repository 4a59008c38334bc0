"""A tf.data service beside the workers of a job on one machine: a dispatcher and data workers, kept alive.

If any of them ends, the training continues and makes the missing batches itself (solo_dist/data/input/service.py).
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_START_SECONDS = 120.0
_POLL_SECONDS = 0.1


class DataService:
    """The processes of `solo-dist data-service`; a context manager that ends them.

    Args:
      workers: number of data workers; 0: no service.
      port: of the dispatcher.
      log_dir: folder that gets data_dispatcher.log and data_worker_N.log.
      say: prints a line of the launcher.
      prepare: what each process does before it starts Python.
    """

    def __init__(self, workers: int, port: int, log_dir: Path, say: Callable[[str], None], prepare: Callable[[], None]):
        self.address = f"grpc://127.0.0.1:{port}" if workers else ""
        self._port, self._log_dir, self._say, self._prepare = port, log_dir, say, prepare
        self._arguments = {"data_dispatcher": ["--role=dispatcher", f"--port={port}"]} if workers else {}
        for index in range(workers):
            connection = [f"--dispatcher=127.0.0.1:{port}", "--host=127.0.0.1"]
            self._arguments[f"data_worker_{index}"] = ["--role=worker", *connection]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "DataService":
        for name in self._arguments:
            self._start(name)
        self._await_dispatcher()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # nothing is lost: they keep no state on disk
            process.wait()

    def keep_alive(self) -> None:
        """Starts every process again that has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                self._say(f"{name} has ended; starting it again. Log: {self._log_dir / name}.log")
                self._start(name)

    def _start(self, name: str) -> None:
        with (self._log_dir / f"{name}.log").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-u", "-m", "solo_dist.commands.data_service", *self._arguments[name]],
                env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._prepare,
            )

    def _await_dispatcher(self) -> None:
        """Waits until the dispatcher answers: a training refuses to start without it."""
        end = time.monotonic() + _START_SECONDS
        while self._processes and time.monotonic() < end and self._processes["data_dispatcher"].poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return
            time.sleep(_POLL_SECONDS)
        if self._processes:
            self._say(f"The dispatcher does not answer; see {self._log_dir}/data_dispatcher.log.")
