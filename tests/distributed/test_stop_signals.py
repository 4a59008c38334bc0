"""Requests to stop: real signals to real processes, and a real metadata server on loopback."""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from solo_dist.distributed.stop_signals import StopSignals, metadata_host

WAIT_SECONDS = 30


def requested(stop):
    """The reason to stop, as soon as the thread that reads signals has set it."""
    end = time.monotonic() + WAIT_SECONDS
    while stop.requested is None and time.monotonic() < end:
        time.sleep(0.01)
    return stop.requested


@pytest.fixture(autouse=True)
def handlers():
    """Puts the handlers of the test process back, which a requested stop leaves ignored."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_signals_set_the_flag(name):
    with StopSignals({"NO_GCE_CHECK": "true"}) as stop:
        assert stop.requested is None
        os.kill(os.getpid(), getattr(signal, name))
        assert requested(stop).startswith(name)
        assert stop.requested.startswith(name)


def test_a_closed_terminal_is_nothing_to_a_process_under_nohup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals({"NO_GCE_CHECK": "true"}) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert requested(stop).startswith("SIGTERM")


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with StopSignals({"NO_GCE_CHECK": "true"}):
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] != before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_warnings_after_the_stop_do_not_change_the_exit():
    with StopSignals({"NO_GCE_CHECK": "true"}) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        requested(stop)
    os.kill(os.getpid(), signal.SIGUSR1)  # would end this process
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_first_reason_stays():
    with StopSignals({"NO_GCE_CHECK": "true"}) as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert requested(stop).startswith("SIGUSR1")
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested.startswith("SIGUSR1")


# A function called through CDLL gives the interpreter back while it runs, as TensorFlow does.
STUCK = """
import ctypes, os
from solo_dist.distributed.stop_signals import StopSignals
with StopSignals({"NO_GCE_CHECK": "true"}) as stop:
    print("ready", flush=True)
    while True:
        ctypes.CDLL(None).pause()
"""


def test_second_interrupt_leaves_at_once_from_native_code():
    # The native function is entered again after each signal and never looks at the flag.
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert "Stop requested: SIGINT" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130
    assert "leaving at once" in errors


class Metadata(http.server.BaseHTTPRequestHandler):
    """Answers like Google's metadata server: only with its header, FALSE until the test says otherwise."""

    def do_GET(self):  # noqa: N802, the name is that of http.server
        self.server.requests.append(self.path)
        right = self.path == "/computeMetadata/v1/instance/preempted" and self.headers["Metadata-Flavor"] == "Google"
        failing = len(self.server.requests) <= self.server.failures
        self.send_response(503 if failing else 200 if right else 403)
        self.end_headers()
        if right and not failing:
            self.wfile.write(self.server.answer)
        self.server.answered.set()

    def log_message(self, *args):
        pass


@pytest.fixture
def metadata():
    server = http.server.HTTPServer(("127.0.0.1", 0), Metadata)
    server.answer, server.requests, server.failures, server.answered = b"FALSE", [], 0, threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(server) -> dict[str, str]:
    return {"GCE_METADATA_HOST": f"127.0.0.1:{server.server_port}", "NO_GCE_CHECK": "true"}


def test_notice_of_preemption(metadata):
    with StopSignals(address(metadata)) as stop:
        assert metadata.answered.wait(WAIT_SECONDS)
        assert stop.requested is None
        metadata.answer = b"TRUE\n"
        assert "preemption" in requested(stop)


def test_goes_on_asking_after_an_error(metadata):
    metadata.failures, metadata.answer = 1, b"TRUE"
    with StopSignals(address(metadata)) as stop:
        assert "preemption" in requested(stop)
    assert len(metadata.requests) == 2


def test_asks_google_only_on_its_machines(tmp_path):
    google, other = tmp_path / "google", tmp_path / "other"
    google.write_text("Google Compute Engine\n")
    other.write_text("Standard PC (Q35)\n")
    assert metadata_host({}, str(google)) == "metadata.google.internal"
    assert metadata_host({"NO_GCE_CHECK": "true"}, str(google)) is None
    assert metadata_host({}, str(other)) is None
    assert metadata_host({}, str(tmp_path / "absent")) is None
    assert metadata_host({"GCE_METADATA_HOST": "h:1"}, str(other)) == "h:1"


def test_threads_end_with_the_context(metadata):
    with StopSignals(address(metadata)):
        names = {thread.name for thread in threading.enumerate()}
        assert {"signals", "preemption"} <= names
    end = time.monotonic() + WAIT_SECONDS
    while {"signals", "preemption"} & {thread.name for thread in threading.enumerate()}:
        assert time.monotonic() < end
        time.sleep(0.01)
