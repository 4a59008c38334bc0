"""A lease on a folder or on a part of its work, so that two processes never do the same.

    with Lease(f"{workdir}/lock.json", messages, job=job, on_lost=leave):  # LockError if it is held
        train()

The lease is a file, which the holder rewrites at every heartbeat. On a disk, only one process can create the file. In
an object store there is no "create if absent", but a file is always written whole, and the next reader sees it. There,
and when the lease of a holder that has ended is taken over, a process writes its own token, waits a moment, and checks
that the token is still there. If two processes write at the same moment, the later one wins; the other sees that at
this check or at its next heartbeat, and stops.

A lease whose holder has ended does not block the next start:
  the holder ran on this machine        taken over at once if its process is gone, an error if it is alive
  the holder belonged to the same job   (a restart by launcher or scheduler) taken over at once
  the holder ran elsewhere              taken over if the file stays unchanged for three heartbeats
Clocks of different machines are never compared.
"""

import dataclasses
import datetime
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable

import tensorflow as tf

from solo_dist.errors import StoreError, StoreUnavailable, UserError
from solo_dist.storage import file_io, urls

HEARTBEAT_SECONDS = 10.0
_STALE_HEARTBEATS = 3
_SETTLE_SECONDS_LOCAL = 0.1
_SETTLE_SECONDS_REMOTE = 1.0


class LockError(UserError):
    """Another process holds the lease, or it cannot be written; the message names it and the remedy."""


@dataclasses.dataclass(frozen=True)
class Words:
    """How messages speak of a lease."""

    what: str
    """What the holder uses, such as "--workdir=runs/mine"."""
    remedy: str
    """What to do if another process holds it, such as "Stop that job or choose another --workdir"."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """What the lock file says about the process that holds it."""

    token: str
    host: str
    machine: str
    """Boot and process namespace: within them a process id names one process."""
    pid: int
    process_started: str
    """Start time of the process in the kernel's clock, by which it differs from a later one with the same id."""
    since: str
    job: str | None
    heartbeat_seconds: float
    beat: int = 0

    @classmethod
    def this_process(cls, heartbeat_seconds: float, job: str | None = None) -> "Holder":
        """A holder with a new token for the running process, which belongs to a job of a launcher or scheduler."""
        return cls(
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            process_started=_process_started(os.getpid()) or "",
            since=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            job=job,
            heartbeat_seconds=heartbeat_seconds,
        )


class Lease:
    """Context manager that holds a lease and renews it in a thread."""

    def __init__(
        self,
        path: str,
        words: Words,
        on_lost: Callable[[], None],
        job: str | None = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ):
        """Takes what to hold.

        Args:
          path: of the file, a path or URL.
          words: for messages.
          on_lost: called if another process has taken the lease; it should end this one before it can write anything.
          job: what all starts of one job share; None: this process belongs to no job.
          heartbeat_seconds: time between renewals.
        """
        self._path, self._words, self._on_lost = path, words, on_lost
        self._holder = Holder.this_process(heartbeat_seconds, job)
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        try:
            holder = self._read()
            if holder is not None:
                self._check_abandoned(holder)
            if holder is not None or urls.is_remote(self._path) or not self._create():
                self._write()
                time.sleep(_SETTLE_SECONDS_REMOTE if urls.is_remote(self._path) else _SETTLE_SECONDS_LOCAL)
            holder = self._read()
        except StoreError as error:
            raise type(error)(f"Cannot write to {self._words.what}: {error}") from error
        if holder is None or holder.token != self._holder.token:
            raise self._held(holder or self._holder)
        self._thread.start()
        return self

    def check_free(self) -> None:
        """Returns if no process holds the lease, possibly after some heartbeats; raises LockError if one does."""
        holder = self._read()
        if holder is not None and holder.token != self._holder.token:
            self._check_abandoned(holder)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._released.set()
        if isinstance(error, StoreUnavailable):
            return
        self._thread.join(timeout=self._holder.heartbeat_seconds)  # it takes longer if the store does not answer
        if self._thread.is_alive():
            return
        try:
            holder = self._read()
            if holder is not None and holder.token == self._holder.token:
                file_io.remove(self._path)
        except StoreError as error:
            logging.warning("Could not remove the lease: %s", error)

    def _check_abandoned(self, holder: Holder) -> None:
        """Returns if the holder has ended; raises LockError if it is alive."""
        if holder.machine == self._holder.machine:
            if _process_started(holder.pid) == holder.process_started:
                raise self._held(holder)
            logging.warning("Process %d, which held %s, has ended; taking over.", holder.pid, self._path)
        elif holder.job and holder.job == self._holder.job:
            logging.warning("%s was held by an earlier start of this job on %s; taking over.", self._path, holder.host)
        else:
            self._watch(holder)

    def _watch(self, holder: Holder) -> None:
        seconds = _STALE_HEARTBEATS * holder.heartbeat_seconds
        logging.warning(
            "%s is held by %s; waiting up to %g s for its next heartbeat.", self._path, holder.host, seconds
        )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(min(1.0, seconds / 10))
            now = self._read()
            if now is None:
                return
            if now != holder:
                raise self._held(now)
        logging.warning("No heartbeat; taking over.")

    def _held(self, holder: Holder) -> LockError:
        job = f", {holder.job}" if holder.job else ""
        return LockError(
            f"{self._words.what} is in use by process {holder.pid} on {holder.host} since {holder.since}{job}. "
            f"{self._words.remedy}; if you are sure that it has ended, delete {self._path}."
        )

    def _read(self) -> Holder | None:
        try:
            return Holder(**json.loads(file_io.read(self._path)))
        except tf.errors.NotFoundError:
            return None
        except (json.JSONDecodeError, TypeError) as error:
            raise LockError(
                f"{self._path} is damaged ({error}); delete it if no job uses {self._words.what}."
            ) from error

    def _write(self) -> None:
        file_io.write(self._path, self._content())

    def _create(self) -> bool:
        """Creates the file on a disk; False: its file system has no links. Raises LockError if another was faster."""
        mine = f"{self._path}.{self._holder.token}"
        file_io.write(mine, self._content())
        try:
            os.link(mine, self._path)  # unlike open(..., "x"), creates the file together with its content
        except FileExistsError:
            raise self._held(self._read() or self._holder) from None
        except OSError:
            return False
        finally:
            file_io.remove(mine)
        return True

    def _content(self) -> bytes:
        return json.dumps(dataclasses.asdict(self._holder), indent=2).encode()

    def _renew(self) -> None:
        while not self._released.wait(self._holder.heartbeat_seconds):
            self._holder = dataclasses.replace(self._holder, beat=self._holder.beat + 1)
            try:
                holder = self._read()
                if holder is not None and holder.token != self._holder.token:
                    logging.error("%s Leaving so as not to damage its files.", self._held(holder))
                    self._on_lost()
                    return
                self._write()
            except (StoreError, LockError) as error:
                logging.warning("Could not renew the lease: %s", error)


def _machine() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _process_started(pid: int) -> str | None:
    """Start time of a process of this machine; "" if the system does not show it, None if the process has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    if os.path.isdir("/proc/self"):
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return ""
