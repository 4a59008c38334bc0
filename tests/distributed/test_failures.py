"""What happens to a training when a worker never comes, a disk is full, or the number of workers changes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from solo_dist.distributed.exit_codes import EXIT_PREEMPTED, EXIT_USER_ERROR, EXIT_WATCHDOG
from solo_dist.distributed.launcher import free_ports
from solo_dist.run.checkpoint_store import CheckpointStore
from tests.distributed import tiny

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 600


def start(environ: dict[str, str], log: Path, *command: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT
        )


def stop_at(step: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Lets a training reach a step, then asks it to stop."""
    end = time.monotonic() + LIMIT_SECONDS
    while max(map(int, re.findall(r"step (\d+)/", log.read_text())), default=0) < step:
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-5000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_SECONDS) == EXIT_PREEMPTED, log.read_text()[-5000:]


def test_a_worker_that_never_comes_ends_the_wait(flags, environ, tmp_path):
    free = "--workers=127.0.0.1:29871,127.0.0.1:29872"  # nothing ever listens on the second
    command = [*flags(tmp_path, steps=5), "--strategy=multi_worker", free, "--worker_index=0"]
    process = start(environ, tmp_path / "log", "solo_dist.train", *command, "--config.runtime.watchdog_minutes=0.05")
    code = process.wait(LIMIT_SECONDS)
    output = (tmp_path / "log").read_text()
    assert code == EXIT_WATCHDOG, output
    assert "waiting until all workers have started: 127.0.0.1:29871, 127.0.0.1:29872" in output
    assert "wait_for_workers" in output, "the stack does not say where it waits:\n" + output


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_another_number_of_workers_and_another_strategy_go_on(flags, environ, train, tmp_path):
    steps = 30
    reference = train(tmp_path / "one", flags(tmp_path / "one", steps=steps))
    workdir, log = tmp_path / "elastic", tmp_path / "log"
    command = flags(workdir, steps=steps)
    two = start(environ, log, "launch.local", "--workers=2", "--", *command)
    stop_at(6, two, log)
    three = start(environ, log, "launch.local", "--workers=3", "--", *command, "--config.train.micro_batch=2")
    stop_at(13, three, log)
    assert "2 accumulated micro-batches x 3 replicas" in log.read_text()
    assert re.search(r"input: continues at image \d+ of epoch \d+", log.read_text())
    refused = start(environ, log, "launch.local", "--workers=5", "--", *command)
    assert refused.wait(LIMIT_SECONDS) == EXIT_USER_ERROR, "12 images cannot be divided by 5 workers"
    assert "train.global_batch=12" in log.read_text() and "10 or 15" in log.read_text(), log.read_text()[-2000:]
    mirrored = start(environ, log, "solo_dist.train", *command, "--strategy=mirrored", "--cpu_devices=2")
    stop_at(20, mirrored, log)
    run = train(workdir, command)
    losses, expected = run.metrics(), reference.metrics()
    assert sorted(losses) == list(range(1, steps + 1))
    for step in losses:
        assert losses[step]["loss/total"] == pytest.approx(expected[step]["loss/total"], rel=1e-4), step
    arrays = reference.arrays(steps)
    for name, value in run.arrays(steps).items():
        if name.startswith("model/"):
            np.testing.assert_allclose(value, arrays[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_worker_that_waits_for_others_leaves_on_a_signal(number, flags, environ, tmp_path):
    mine, other = free_ports(2)
    cluster = [f"--workers=127.0.0.1:{mine},127.0.0.1:{other}", "--worker_index=0", "--strategy=multi_worker"]
    process = start(environ, tmp_path / "log", "solo_dist.train", *flags(tmp_path / "run"), *cluster)
    end = time.monotonic() + LIMIT_SECONDS
    with socket.socket() as server:
        while server.connect_ex(("127.0.0.1", mine)):
            assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(LIMIT_SECONDS) == -number


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes; "ro" remounts it read-only."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_full_and_read_only_disks(small_disk, flags, environ, tmp_path):
    workdir, log = small_disk / "run", tmp_path / "log"
    command = ["solo_dist.train", *flags(workdir, steps=60, save_every=2)]

    full = start(environ, log, *command).wait(LIMIT_SECONDS)
    output = log.read_text()
    assert full == EXIT_USER_ERROR, output[-5000:]
    assert "Traceback" not in output and "No space left" in output.splitlines()[-1], output[-5000:]
    store = CheckpointStore(str(workdir / "checkpoints"))
    saved = store.steps()
    assert saved and store.load_latest().metadata.step == saved[-1], "an older checkpoint was damaged"

    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    process = start(environ, log, *command)
    stop_at(saved[-1] + 2, process, log)
    assert f"weights: checkpoint of step {saved[-1]}" in log.read_text()

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = start(environ, log, *command).wait(LIMIT_SECONDS)
    output = log.read_text()
    assert refused == EXIT_USER_ERROR, output[-5000:]
    assert "Traceback" not in output and str(workdir) in output.splitlines()[-1], output[-5000:]


@pytest.mark.slow
def test_a_run_of_minutes_has_one_length_on_all_workers_and_after_a_stop(flags, environ, tmp_path):
    workdir, log = tmp_path / "run", tmp_path / "log"
    command = ["launch.local", "--workers=2", "--", *flags(workdir, steps=0, minutes=0.2, save_every=1000)]
    stop_at(6, start(environ, log, *command), log)
    stopped = CheckpointStore(str(workdir / "checkpoints")).newest_metadata()
    assert f"{stopped.total_steps} steps of" in log.read_text() and stopped.step < stopped.total_steps
    assert start(environ, log, *command).wait(LIMIT_SECONDS) == 0, log.read_text()[-5000:]
    assert f"train.minutes: {stopped.total_steps} steps, by the speed measured" in log.read_text()
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, stopped.total_steps + 1))
    config = tiny.get_config().optimizer
    for finished, line in enumerate(lines):
        risen = min(1.0, finished / config.warmup_steps)
        done = max(0.0, (finished - config.warmup_steps) / (stopped.total_steps - config.warmup_steps))
        expected = config.warmup_factor + (1 - config.warmup_factor) * risen
        expected *= config.learning_rate * 0.5 * (1 + np.cos(np.pi * done))
        assert line["lr"] == pytest.approx(expected, rel=1e-4, abs=1e-8), line["step"]
