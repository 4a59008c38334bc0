"""Requests to stop this process: signals of users and schedulers, and Google's notice of preemption.

    with StopSignals() as stop:
        for step in ...:
            if any_worker(stop.requested is not None):   # all-reduced by the trainer: all workers agree on the step
                save(); sys.exit(EXIT_PREEMPTED)

Nothing is saved from a signal handler; the trainer reads the flag between two steps. tf.distribute's own
PreemptionCheckpointHandler is not used: except on some Google machines it watches nothing.
"""

import contextlib
import http.client
import logging
import os
import signal
import threading
import urllib.request
from collections.abc import Mapping
from types import FrameType

_REASONS = {
    signal.SIGTERM: "SIGTERM",
    signal.SIGINT: "SIGINT (Ctrl-C)",
    signal.SIGUSR1: "SIGUSR1, the scheduler's early warning",
    signal.SIGHUP: "SIGHUP, the terminal was closed",
}
_METADATA_HOST_VARIABLE = "GCE_METADATA_HOST"
_PRODUCT_NAME_FILE = "/sys/class/dmi/id/product_name"
_POLL_SECONDS = 2.0
_EXIT_INTERRUPTED = 128 + signal.SIGINT


class StopSignals:
    """Context manager that turns requests to stop into a flag with a reason.

    Signals are handled in a thread that reads the interpreter's wakeup file: Python's handlers run only when the main
    thread returns from TensorFlow, and a second Ctrl-C must work even if that never happens. Must be entered in the
    main thread. The exit restores the handlers of before, except that after a request to stop, further signals of a
    scheduler are ignored until the process has ended.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ):
        """Takes the environment, in which GCE_METADATA_HOST and NO_GCE_CHECK decide on polling for preemption."""
        self._environ = environ
        self._requested: str | None = None
        self._closed = threading.Event()

    @property
    def requested(self) -> str | None:
        """Why the process should stop, the first reason if there are several; None as long as it should not."""
        return self._requested

    def __enter__(self) -> "StopSignals":
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._old_wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        numbers = _REASONS.keys() - ignored_by_nohup()
        self._old_handlers = {number: signal.signal(number, _do_nothing) for number in numbers}
        threading.Thread(target=self._read_signals, name="signals", daemon=True).start()
        host = metadata_host(self._environ)
        if host:
            threading.Thread(target=self._poll_metadata, args=(host,), name="preemption", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed.set()
        for number, handler in self._old_handlers.items():
            ignore = self._requested is not None and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if ignore else handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._write_end)  # ends the thread that reads; it closes the other end

    def _request(self, reason: str) -> None:
        if self._requested is None:
            self._requested = reason
            logging.warning("Stop requested: %s. Saving after the step that all workers agree on.", reason)
            if reason == _REASONS[signal.SIGINT]:
                logging.warning("Press Ctrl-C again to leave at once, without saving.")

    def _read_signals(self) -> None:
        interrupts = 0
        while numbers := os.read(self._read_end, 64):
            for number in numbers:
                interrupts += number == signal.SIGINT
                if interrupts > 1:
                    with contextlib.suppress(OSError):
                        os.write(2, b"Second Ctrl-C: leaving at once, nothing saved since the last checkpoint.\n")
                    os._exit(_EXIT_INTERRUPTED)
                if number in _REASONS:
                    self._request(_REASONS[signal.Signals(number)])
        os.close(self._read_end)

    def _poll_metadata(self, host: str) -> None:
        warned = False
        while True:
            try:
                if _is_preempted(host):
                    self._request("notice of preemption by Google Compute Engine")
                    return
            except (OSError, http.client.HTTPException) as error:
                if not warned:
                    logging.warning(
                        "Cannot ask %s for notices of preemption: %s. It is asked again every %g s.",
                        host,
                        error,
                        _POLL_SECONDS,
                    )
                warned = True
            if self._closed.wait(_POLL_SECONDS):
                return


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """The wakeup file is written only for signals that have a handler; the thread does the work."""


def ignored_by_nohup() -> set[signal.Signals]:
    """SIGHUP, if this process was started to ignore it, as by nohup: it should stay ignored. Otherwise nothing."""
    return {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()


def metadata_host(environ: Mapping[str, str], product_name_file: str = _PRODUCT_NAME_FILE) -> str | None:
    """The metadata server to ask for preemption: GCE_METADATA_HOST, or Google's on its machines; else None."""
    if environ.get(_METADATA_HOST_VARIABLE):
        return environ[_METADATA_HOST_VARIABLE]
    if environ.get("NO_GCE_CHECK", "").lower() == "true":
        return None
    try:
        with open(product_name_file, encoding="utf-8") as file:
            return "metadata.google.internal" if "Google" in file.read() else None
    except OSError:
        return None


def _is_preempted(host: str) -> bool:
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/preempted", headers={"Metadata-Flavor": "Google"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy: link-local
    with direct.open(request, timeout=10) as response:
        return response.read().strip().upper() == b"TRUE"
