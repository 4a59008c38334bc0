"""A tf.data service of real processes on loopback: a training must not depend on it, nor on its workers' lives."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from solo_dist.config import AugmentConfig, Config, DataConfig, GridConfig, ModelConfig
from solo_dist.data.input import pipeline, service

ROOT = Path(__file__).resolve().parents[2]
STEPS = 30


class Servers:
    """A dispatcher and workers."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.processes: list[subprocess.Popen] = []
        self.start("--role=dispatcher", f"--port={self.port}")

    @property
    def address(self) -> str:
        return f"grpc://localhost:{self.port}"

    def start_worker(self) -> subprocess.Popen:
        return self.start("--role=worker", f"--dispatcher=localhost:{self.port}", "--host=localhost")

    def start(self, *arguments: str) -> subprocess.Popen:
        """Waits until it serves."""
        process = subprocess.Popen(
            [sys.executable, "-m", "solo_dist", "data-service", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )
        self.processes.append(process)
        assert process.stdout and process.stdout.readline(), "the server did not start"
        return process

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture
def servers() -> Iterator[Servers]:
    started = Servers()
    yield started
    started.stop()


@pytest.mark.slow
def test_batches_are_those_made_without_the_service_although_workers_die(servers, shards, monkeypatch):
    monkeypatch.setattr(service, "PATIENCE_SECONDS", 0.2)
    grid = GridConfig(levels=("p3", "p4"), sizes=(8, 6), scale_ranges=((1, 40), (24, 2048)))
    augment = AugmentConfig(brightness=0.2, crop=0.1, mosaic=0.5, paste=0.5)
    data = DataConfig(train=shards["train"], canvas=(64, 64), augment=augment)
    recipe = Config(data=data, model=ModelConfig(grid=grid))
    place = {"batch_size": 3, "worker": 1, "num_workers": 2, "start_position": 12}
    count = 60
    reference = list(pipeline.build_dataset(recipe, "train", **place).take(count))
    doomed, other = servers.start_worker(), servers.start_worker()
    recipe.data.service = servers.address
    through = pipeline.build_dataset(recipe, "train", **place).take(count)
    for step, (made_there, made_here) in enumerate(zip(through, reference, strict=True)):
        assert made_there.keys() == made_here.keys()
        for key in made_here:
            np.testing.assert_array_equal(made_there[key], made_here[key], err_msg=f"{key} of batch {step}")
        if step == 10:
            doomed.kill()
        if step == 40:
            other.kill()


@pytest.mark.slow
def test_a_training_fed_by_the_service_outlives_it(servers, flags, train, environ, tmp_path):
    reference = train(tmp_path / "here", flags(tmp_path / "here", steps=STEPS))
    doomed, _ = servers.start_worker(), servers.start_worker()
    workdir = tmp_path / "through"
    command = [*flags(workdir, steps=STEPS, panel_every=STEPS - 5), f"--config.data.service={servers.address}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "solo_dist.train", *command],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    output = []
    for line in process.stdout:
        output.append(line)
        if f"step 5/{STEPS}" in line:
            doomed.kill()
        if f"step 15/{STEPS}" in line:
            for server in servers.processes:
                server.kill()
    assert process.wait() == 0, "".join(output)[-5000:]
    assert doomed.poll() is not None, "the worker was not killed:\n" + "".join(output)
    run = type(reference)(workdir, "".join(output))
    assert {step: line["loss/total"] for step, line in run.metrics().items()} == {
        step: line["loss/total"] for step, line in reference.metrics().items()
    }


@pytest.mark.slow
def test_the_launcher_keeps_a_service_going(flags, train, environ, tmp_path):
    reference = train(tmp_path / "here", flags(tmp_path / "here", steps=STEPS))
    workdir = tmp_path / "launched"
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.local", "--workers=1", "--data_workers=2", "--", *flags(workdir, steps=STEPS)],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    output, killed = "", []
    for line in process.stdout:
        output += line
        if f"step 5/{STEPS}" in line:
            killed = [child for child in psutil.Process(process.pid).children() if "--role=worker" in child.cmdline()]
            killed[0].kill()
    assert process.wait() == 0, output[-5000:]
    assert len(killed) == 2 and "data_worker_0 has ended; starting it again" in output, output
    assert not any(child.is_running() for child in killed)
    run = type(reference)(workdir, output)
    losses = [{step: line["loss/total"] for step, line in other.metrics().items()} for other in (run, reference)]
    assert losses[0] == losses[1]
    assert "worker of 127.0.0.1" in (workdir / "logs/data_worker_1.log").read_text()


def test_servers_end_when_told_to(servers):
    worker = servers.start_worker()
    for process in (worker, servers.processes[0]):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 0
