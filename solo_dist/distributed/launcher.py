"""Starts the workers of one job on this machine, watches them, and starts the job again after a failure.

What it does when a worker ends or a signal arrives is described in solo_dist/commands/launch.py, its command line.
Imports no TensorFlow. Linux only.
"""

import contextlib
import ctypes
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from solo_dist.distributed.cluster.cluster import Cluster
from solo_dist.distributed.data_processes import DataService
from solo_dist.distributed.exit_codes import (
    EXIT_DONE,
    EXIT_PREEMPTED,
    EXIT_USER_ERROR,
    as_exit_code,
    describe_exit,
    is_restartable,
)
from solo_dist.distributed.job import JOB_ID_VARIABLE, PROGRESS_VARIABLE, read_progress
from solo_dist.distributed.stop_signals import ignored_by_nohup

_POLL_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
FORWARDED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1})
"""Signals that are passed on to the processes that this one starts."""


def say(message: str) -> None:
    """Prints a line of the launcher. If nothing reads stdout any more (a closed terminal), the job continues."""
    with contextlib.suppress(OSError):
        print(f"[launcher] {message}", flush=True)


@dataclasses.dataclass(frozen=True)
class LaunchOptions:
    """What the command line of the launcher says; for the meaning of each field see its --help."""

    arguments: tuple[str, ...]
    """Flags of the workers."""
    log_dir: str
    workers: int = 2
    max_restarts: int = 3
    kill_seconds: float = 15
    stop_seconds: float = 120
    gpus_per_worker: int = 0
    cores_per_worker: int = 0
    data_workers: int = 0
    module: str = "solo_dist.train"
    first_index: int = 0
    """Rank of the first worker of this launcher: launchers of several machines can share a folder of logs."""


@dataclasses.dataclass
class Worker:
    """A worker process, and how many bytes of its log have been shown."""

    index: int
    """Its rank in the job."""
    process: subprocess.Popen[bytes]
    log: Path
    shown: int

    def show_output(self, to_the_end: bool = False) -> None:
        """Prints the lines that were added to the log, with a prefix; an incomplete last line only if `to_the_end`."""
        with self.log.open("rb") as file:
            file.seek(self.shown)
            text = file.read()
        if not to_the_end:
            text = text[: text.rfind(b"\n") + 1]
        self.shown += len(text)
        with contextlib.suppress(OSError):  # as in say(); the log file has every line
            for line in text.splitlines():
                sys.stdout.write(f"[worker {self.index}] {line.decode(errors='replace')}\n")
            sys.stdout.flush()

    def send(self, number: int) -> None:
        """Sends a signal to the worker and the processes it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class Launcher:
    """One job: starts its workers as often as needed."""

    def __init__(self, options: LaunchOptions):
        self._options = options
        self._log_dir = Path(options.log_dir).resolve()
        self._log_dir.mkdir(parents=True, exist_ok=True)
        self._progress_file = str(self._log_dir / f"progress_{options.first_index}")
        Path(self._progress_file).unlink(missing_ok=True)
        self._job_id = os.environ.get(JOB_ID_VARIABLE) or uuid.uuid4().hex
        self._signals: list[int] = []
        self._stopping = False

    def run(self) -> int:
        """Runs the job to its end and returns the exit code."""
        for number in FORWARDED - ignored_by_nohup():
            signal.signal(number, self._on_signal)
        with DataService(
            self._options.data_workers, free_ports(1)[0], self._log_dir, say, before_exec(0, 0)
        ) as self._data_service:
            return self._run_until_done()

    def _run_until_done(self) -> int:
        failures, progress, start = 0, -1, 0
        while True:
            codes = self._run_once(start)
            code = _job_code(codes)
            if self._stopping or not is_restartable(code):
                say(f"The job has ended: {describe_exit(code)}.")
                return as_exit_code(code)
            if read_progress(self._progress_file) > progress:
                failures, progress = 0, read_progress(self._progress_file)
            failures, start = failures + 1, start + 1
            what, attempts = describe_exit(code), self._options.max_restarts
            if failures > attempts:
                say(f"Giving up: {what}, {failures} times without a new checkpoint. Logs: {self._log_dir}")
                return as_exit_code(code)
            pause = min(2.0 ** (failures - 1), _LONGEST_PAUSE_SECONDS)
            say(f"Starting all workers again in {pause:g} s: {what}; {failures} of {attempts} without new checkpoint.")
            if not self._pause(pause):
                return EXIT_PREEMPTED

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _pause(self, seconds: float) -> bool:
        """Waits; returns False if a signal arrived meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._signals:
            time.sleep(_POLL_SECONDS)
        return not self._signals

    def _run_once(self, start: int) -> list[int]:
        """Starts all workers, waits until all have ended, and returns their codes, that of the first to fail first."""
        workers = self._start_workers(start)
        ended: list[tuple[Worker, int]] = []
        deadline: float | None = None
        while len(ended) < len(workers):
            time.sleep(_POLL_SECONDS)
            self._data_service.keep_alive()
            deadline = self._forward_signals(workers, deadline)
            for worker in workers:
                worker.show_output()
                code = worker.process.poll()
                if code is not None and worker not in [other for other, _ in ended]:
                    ended.append((worker, code))
                    deadline = self._after_end(worker, code, workers, deadline)
            if deadline is not None and time.monotonic() > deadline:
                say("Killing the workers that are left.")
                _send_all(workers, signal.SIGKILL)
                deadline = None
        for worker in workers:
            worker.send(signal.SIGKILL)  # child processes of an ended worker that still run
            worker.show_output(to_the_end=True)
        return [code for _, code in sorted(ended, key=lambda item: item[1] == EXIT_DONE)]

    def _forward_signals(self, workers: list[Worker], deadline: float | None) -> float | None:
        while self._signals:
            number = signal.Signals(self._signals.pop(0))
            self._stopping = True
            deadline = deadline or time.monotonic() + self._options.stop_seconds
            _send_all(workers, number)
            say(f"Received {number.name}; passed it to the workers.")
        return deadline

    def _after_end(self, worker: Worker, code: int, workers: list[Worker], deadline: float | None) -> float | None:
        """Decides how long the other workers may continue; returns when they will be killed, None for no limit."""
        say(f"Worker {worker.index} has ended: {describe_exit(code)}.")
        if deadline is not None or (code == EXIT_DONE and worker is not workers[0]):
            return deadline
        if code in (EXIT_DONE, EXIT_PREEMPTED):  # workers that are done or saving need a moment
            return time.monotonic() + self._options.stop_seconds
        _send_all(workers, signal.SIGTERM)
        return time.monotonic() + self._options.kill_seconds

    def _start_workers(self, start: int) -> list[Worker]:
        options = self._options
        addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(options.workers))
        say(f"Starting {options.workers} worker(s){f', start {start + 1}' if start else ''}. Logs: {self._log_dir}")
        workers = []
        for index in range(options.workers):
            environ = os.environ | {JOB_ID_VARIABLE: self._job_id, PROGRESS_VARIABLE: self._progress_file}
            if options.workers > 1:
                environ["TF_CONFIG"] = Cluster(addresses, index).tf_config()
            if options.gpus_per_worker:
                environ["CUDA_VISIBLE_DEVICES"] = _gpus_of(index, options.gpus_per_worker)
            workers.append(self._start_worker(index, environ))
        return workers

    def _start_worker(self, index: int, environ: dict[str, str]) -> Worker:
        number = self._options.first_index + index
        log = self._log_dir / f"worker_{number}.log"
        with log.open("ab") as output:
            shown = output.tell()
            process = subprocess.Popen(
                _command(self._options, self._data_service.address),
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which passes it on
                preexec_fn=before_exec(index, self._options.cores_per_worker),
            )
        return Worker(number, process, log, shown)


def _send_all(workers: list[Worker], number: int) -> None:
    for worker in workers:
        if worker.process.poll() is None:
            worker.send(number)


def _job_code(codes: list[int]) -> int:
    """The code of the job: a user's error if any worker had one, else the first failure, else saved, else done."""
    failures = [code for code in codes if code not in (EXIT_DONE, EXIT_PREEMPTED)]
    return EXIT_USER_ERROR if EXIT_USER_ERROR in codes else [*failures, *codes][0]


def _command(options: LaunchOptions, data_service: str) -> list[str]:
    arguments = list(options.arguments)
    if data_service:
        arguments.append(f"--config.data.service={data_service}")
    return [sys.executable, "-u", "-m", options.module, *arguments]


def visible_gpus() -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this job; empty if it is not set."""
    return [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]


def _gpus_of(index: int, count: int) -> str:
    """The value of CUDA_VISIBLE_DEVICES for one worker."""
    mine = range(index * count, (index + 1) * count)
    visible = visible_gpus()
    return ",".join(visible[number] if visible else str(number) for number in mine)


def before_exec(index: int, cores: int) -> Callable[[], None]:
    """What a process does before it starts Python: be killed when this one ends, and bind to its cores.

    Args:
      index: of the process among those that this one starts.
      cores: for each of them; 0: any.
    """
    launcher = os.getpid()
    allowed = sorted(os.sched_getaffinity(0))
    mine = {allowed[(index * cores + offset) % len(allowed)] for offset in range(cores)}

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:  # the launcher died before prctl was called
            os._exit(1)
        if mine:
            os.sched_setaffinity(0, mine)

    return prepare


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
