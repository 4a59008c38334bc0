"""Two hosts, as two network namespaces joined by a virtual cable, train together; then the cable is cut for a while."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = 60
CUT_SECONDS = 40  # longer than it takes TensorFlow to notice
LIMIT_SECONDS = 900

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2"
    ),
]


def ip(*arguments: str, host: str = "") -> None:
    command = ["ip", *(["-n", host] if host else []), *arguments]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def hosts():
    """Names of two namespaces with addresses 10.71.0.1 and 10.71.0.2 on interfaces named as they are."""
    names = [f"solo{os.getpid()}{letter}" for letter in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0][-14:], "netns", names[0], "type", "veth", "peer", names[1][-14:], "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("addr", "add", f"10.71.0.{number}/24", "dev", name[-14:], host=name)
            ip("link", "set", name[-14:], "up", host=name)
            ip("link", "set", "lo", "up", host=name)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


class Host:
    """A launcher with one worker on one of the hosts."""

    def __init__(self, name: str, index: int, flags: list[str], environ: dict[str, str], log: Path):
        workers = "--workers=10.71.0.1:2222,10.71.0.2:2222"
        command = [sys.executable, "-m", "launch.local", "--workers=1", "--max_restarts=20", "--", *flags]
        command += ["--strategy=multi_worker", workers, f"--worker_index={index}"]
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", name, *command], cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT
            )

    def wait_for(self, pattern: str) -> float:
        """Waits for a line of output that matches; returns the time it was seen."""
        end = time.monotonic() + LIMIT_SECONDS
        while not re.search(pattern, self._log.read_text()):
            assert self.process.poll() is None, self._log.read_text()[-5000:]
            assert time.monotonic() < end, f"waited in vain for {pattern}: {self._log.read_text()[-5000:]}"
            time.sleep(0.1)
        return time.monotonic()


def test_train_together_and_survive_a_cut_link(hosts, flags, environ, train, tmp_path):
    reference = train(tmp_path / "undisturbed", flags(tmp_path / "undisturbed", steps=STEPS), workers=2)
    workdir = tmp_path / "two_hosts"
    processes = [
        Host(name, index, flags(workdir, steps=STEPS), environ, tmp_path / f"host{index}.log")
        for index, name in enumerate(hosts)
    ]
    try:
        processes[0].wait_for(r"step 12/60 ")
        ip("link", "set", hosts[0][-14:], "down", host=hosts[0])
        cut = time.monotonic()
        noticed = [process.wait_for(r"\[launcher\] Worker . has ended") - cut for process in processes]
        time.sleep(max(0.0, CUT_SECONDS - (time.monotonic() - cut)))
        ip("link", "set", hosts[0][-14:], "up", host=hosts[0])
        joined = time.monotonic()
        processes[0].wait_for(r"weights: checkpoint of step 10 [\s\S]*step 1\d/60 ")
        print(f"noticed after {noticed} s; training again {time.monotonic() - joined:.0f} s after the link was back")
        for process in processes:
            assert process.process.wait(LIMIT_SECONDS) == 0
    finally:
        for process in processes:
            process.process.terminate()
            process.process.wait()
    run = type(reference)(workdir, "")
    arrays, expected = run.arrays(STEPS), reference.arrays(STEPS)
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)
    assert sorted(run.metrics()) == list(range(1, STEPS + 1))
