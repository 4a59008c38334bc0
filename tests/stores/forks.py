"""Programs under test without their long start: forks of a process that has loaded TensorFlow, and nothing else yet."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

from tests.stores.fixtures import ROOT

SERVER = """
import json, os, signal, sys, threading, traceback
import google.cloud.storage.transfer_manager, tensorflow, solo_dist.data.input.pipeline, solo_dist.data.sharding.job

children = set()

def end(pid, output):
    _, status = os.waitpid(pid, 0)
    children.discard(pid)
    with open(output + ".new", "w") as file:
        file.write(str(os.waitstatus_to_exitcode(status)))
    os.rename(output + ".new", output + ".end")

print("ready", flush=True)
for line in sys.stdin:
    code, output = json.loads(line)
    pid = os.fork()
    if pid == 0:
        file = os.open(output, os.O_CREAT | os.O_WRONLY)
        os.dup2(file, 1), os.dup2(file, 2)
        status = 1
        try:
            exec(code, {"__name__": "fork"})
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    children.add(pid)
    threading.Thread(target=end, args=(pid, output), daemon=True).start()
    print(pid, flush=True)
for pid in children:
    os.kill(pid, signal.SIGKILL)
os._exit(0)
"""


class Fork:
    """A process that runs a piece of code."""

    def __init__(self, pid: int, output: Path):
        self.pid, self._output = pid, output

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        end = Path(f"{self._output}.end")
        return int(end.read_text()) if end.exists() else None

    @property
    def output(self) -> str:
        return self._output.read_text() if self._output.exists() else ""

    def wait(self, seconds: float = 300) -> int:
        deadline = time.monotonic() + seconds
        while self.returncode is None:
            assert time.monotonic() < deadline, self.output
            time.sleep(0.01)
        return self.returncode

    def kill(self, signal: int) -> int:
        """Sends a signal, if it still runs, and waits for the end."""
        if self.returncode is None:
            os.kill(self.pid, signal)
        return self.wait()


class Forks:
    """Starts them, all with one environment."""

    def __init__(self, environment: dict[str, str]):
        self._folder = tempfile.TemporaryDirectory(prefix="solo_dist_forks_")
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, code: str) -> Fork:
        output = Path(self._folder.name) / uuid.uuid4().hex
        self._server.stdin.write(json.dumps([textwrap.dedent(code), str(output)]) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if line == "ready\n":
            line = self._server.stdout.readline()
        return Fork(int(line), output)

    def run(self, code: str, seconds: float = 300) -> str:
        """What the code prints; it must not fail."""
        fork = self.start(code)
        assert fork.wait(seconds) == 0, f"exit code {fork.returncode}:\n{fork.output}"
        return fork.output

    def close(self) -> None:
        self._server.communicate()
        self._folder.cleanup()
