"""tf.data service: real servers in processes of their own; order and content must not depend on them."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import AugmentConfig, Config, ConfigError, DataConfig, GridConfig, ModelConfig
from solo_dist.data import pipeline, service, shapes
from solo_dist.data.records import ShardSettings
from solo_dist.data.sharding import ShardJob, shard_coco

ROOT = Path(__file__).resolve().parents[2]
CANVAS = (64, 64)
GRID = GridConfig(levels=("p2",), sizes=(8,), scale_ranges=((1, 2000),))


# ---- Putting batches in order


def batch(number: int) -> service.Batch:
    return {"number": tf.constant(number)}


def ordered(arrivals: list[int | None], most_waiting: int, count: int) -> tuple[list[int], list[int]]:
    """Numbers of the batches that come out, and of those that were made here."""
    made: list[int] = []
    incoming = iter(arrivals)

    def next_arrival() -> service.Batch | None:
        number = next(incoming, None)
        return None if number is None else batch(number)

    def make_here(number: int) -> service.Batch:
        made.append(number)
        return batch(number)

    batches = service.in_order(next_arrival, make_here, lambda b: int(b["number"]), most_waiting)
    return [int(next(batches)["number"]) for _ in range(count)], made


@pytest.mark.parametrize(
    ("arrivals", "made"),
    [
        pytest.param([0, 1, 2, 3, 4, 5], [], id="in order"),
        pytest.param([2, 0, 1, 5, 3, 4], [], id="out of order"),
        pytest.param([0, 0, 1, 2, 1, 3, 4, 5], [], id="twice"),
        pytest.param([1, 2, 3, 0, 4, 5], [0], id="later than three others"),
        pytest.param([0, 2, 3, None, 4, 5], [1], id="nothing comes"),
        pytest.param([0, 1, None], [2, 3, 4, 5], id="ended"),
    ],
)
def test_batches_are_put_in_order_and_gaps_are_filled(arrivals, made):
    assert ordered(arrivals, most_waiting=3, count=6) == (list(range(6)), made)


# ---- Real servers


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
            [sys.executable, "-m", "tools.data_service", *arguments],
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


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Config]:
    folder = str(tmp_path_factory.mktemp("shapes"))
    shapes.make_shapes(folder, "train", 9, shapes.ShapesSettings(side=64))
    job = ShardJob(f"{folder}/instances.json", f"{folder}/images", f"{folder}/shards", ShardSettings(CANVAS, GRID))
    shard_coco(job, processes=0, progress=False)

    def make(address: str) -> Config:
        augment = AugmentConfig(brightness=0.2, crop=0.1)
        data = DataConfig(train=f"{folder}/shards", canvas=CANVAS, augment=augment, service=address)
        return Config(data=data, model=ModelConfig(grid=GRID))

    return make


def test_batches_are_those_made_without_the_service_although_workers_die(servers, recipe, monkeypatch):
    monkeypatch.setattr(service, "PATIENCE_SECONDS", 0.2)
    doomed, other = servers.start_worker(), servers.start_worker()
    place = {"batch_size": 3, "worker": 1, "num_workers": 2, "start_position": 12}
    count = 60
    reference = list(pipeline.build_dataset(recipe(""), "train", **place).take(count))
    through = pipeline.build_dataset(recipe(servers.address), "train", **place).take(count)
    for step, (made_there, made_here) in enumerate(zip(through, reference, strict=True)):
        assert made_there.keys() == made_here.keys()
        for key in made_here:
            np.testing.assert_array_equal(made_there[key], made_here[key], err_msg=f"{key} of batch {step}")
        if step == 10:
            doomed.kill()
        if step == 40:
            other.kill()


def test_servers_end_when_told_to(servers):
    worker = servers.start_worker()
    for process in (worker, servers.processes[0]):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("address", ["localhost:5050", "grpc://localhost", "grpc://:5050", "grpc://localhost:port"])
def test_an_address_of_another_form_is_refused(address, recipe):
    with pytest.raises(ConfigError, match="data.service=.*must be grpc://host:port"):
        pipeline.build_dataset(recipe(address), "train", batch_size=2)


def test_a_dispatcher_that_is_not_there_is_named(recipe):
    with pytest.raises(ConfigError, match="data.service=grpc://localhost:.*no dispatcher answers"):
        pipeline.build_dataset(recipe(f"grpc://localhost:{_free_port()}"), "train", batch_size=2)


def test_validation_is_read_here(recipe):
    config = recipe("grpc://localhost:1")
    config.data.validation = config.data.train
    assert len(list(pipeline.build_dataset(config, "validation", batch_size=5))) == 2
