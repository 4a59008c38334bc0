"""Strategies in processes of their own, because devices can be configured once a process."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from solo_dist.distributed.launcher import free_ports
from solo_dist.distributed.strategy import is_peer_loss

ROOT = Path(__file__).resolve().parents[2]

SUM_OVER_REPLICAS = """
import json, sys
import tensorflow as tf
from solo_dist.distributed.cluster.cluster import Cluster
from solo_dist.distributed.strategy import build_strategy
from solo_dist.distributed.strategy import describe
arguments = json.loads(sys.argv[1])
if "cluster" in arguments:
    arguments["cluster"] = Cluster(tuple(arguments["cluster"]), arguments.pop("index"))
strategy = build_strategy(**arguments)

@tf.function
def reduce():
    def replica():
        one = tf.distribute.get_replica_context().replica_id_in_sync_group + 1
        return tf.distribute.get_replica_context().all_reduce("sum", tf.cast(one, tf.float32))
    return strategy.experimental_local_results(strategy.run(replica))

print(json.dumps({"sums": [float(value) for value in reduce()], "words": describe(strategy)}))
"""


def start(**arguments) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SUM_OVER_REPLICAS, json.dumps(arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize(
    ("arguments", "sums", "words"),
    [
        ({"name": "one_device"}, [1.0], "1 replica(s) in one process on CPU:0"),
        ({"name": "mirrored"}, [1.0], "1 replica(s) in one process on CPU:0"),
        ({"name": "mirrored", "cpu_devices": 2}, [3.0, 3.0], "2 replica(s) in one process on CPU:0, CPU:1"),
        ({"name": "mirrored", "cpu_devices": 3, "num_devices": 2}, [3.0, 3.0], "on CPU:0, CPU:1"),
    ],
)
def test_one_process(arguments, sums, words):
    values = result(start(**arguments))
    assert values["sums"] == sums
    assert words in values["words"]


def test_two_workers():
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = [start(name="multi_worker", cluster=workers, index=index, communication="ring") for index in range(2)]
    for index, values in enumerate([result(process) for process in processes]):
        assert values["sums"] == [3.0]
        assert values["words"] == f"worker {index} of 2, 2 replicas in all, here on CPU:0"


def test_a_worker_that_is_not_listening_yet_dies_of_sigterm():
    code = """
import os, signal
from solo_dist.distributed.cluster.cluster import Cluster
from solo_dist.distributed.strategy import build_strategy
from solo_dist.distributed.launcher import free_ports
build_strategy("multi_worker", Cluster((f"127.0.0.1:{free_ports(1)[0]}",), 0))
os.kill(os.getpid(), signal.SIGTERM)
signal.pause()
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=120)
    assert process.returncode == -signal.SIGTERM


ERRORS = [
    ({"name": "parameter_server"}, "--strategy=parameter_server is not one of one_device, mirrored, multi_worker."),
    ({"name": "multi_worker"}, "solo-dist launch --workers=2"),
    ({"name": "multi_worker", "communication": "nccl"}, "use ring or auto"),
    ({"name": "multi_worker", "communication": "x"}, "communication=x is not"),
    ({"name": "multi_worker", "cpu_devices": 2}, "is for --strategy=mirrored"),
    ({"name": "mirrored", "num_devices": 3}, "--num_devices=3, but this process sees 1 CPU device(s)"),
]
PRINT_ERRORS = """
import json, sys
from solo_dist.distributed.cluster.cluster import Cluster
from solo_dist.distributed.strategy import StrategyError
from solo_dist.distributed.strategy import build_strategy
for arguments in json.loads(sys.argv[1]):
    if len(arguments) > 1:
        arguments["cluster"] = Cluster(("a:1",), 0)
    try:
        build_strategy(**arguments)
    except StrategyError as error:
        print(error)
"""


def test_what_cannot_be_built():
    command = [sys.executable, "-c", PRINT_ERRORS, json.dumps([arguments for arguments, _ in ERRORS])]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert len(output) == len(ERRORS)
    for line, (_, message) in zip(output, ERRORS, strict=True):
        assert message in line


def test_peer_loss_is_told_from_other_errors():
    lost = [
        tf.errors.UnavailableError(None, None, "Collective ops is aborted by: connection refused"),
        tf.errors.AbortedError(None, None, "peer restarted"),
        tf.errors.InternalError(None, None, "NCCL: unhandled system error"),
    ]
    others = [tf.errors.ResourceExhaustedError(None, None, "OOM"), tf.errors.InternalError(None, None, "x"), OSError()]
    assert [is_peer_loss(error) for error in lost + others] == [True] * 3 + [False] * 3
