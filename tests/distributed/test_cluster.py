"""Clusters from literal environments, one row a case."""

import concurrent.futures
import json
import socket
import subprocess
import sys
import threading

import pytest

from solo_dist.distributed.cluster.cluster import Cluster, ClusterError
from solo_dist.distributed.cluster.resolve import resolve_cluster
from solo_dist.distributed.cluster.slurm import expand_nodelist
from solo_dist.distributed.cluster.wait import wait_for_workers
from solo_dist.distributed.launcher import free_ports

TF_CONFIG = {"cluster": {"worker": ["a:1", "b:2", "c:3"]}, "task": {"type": "worker", "index": 2}}
TFJOB = {
    "cluster": {
        "chief": ["solo-chief-0.team.svc:2222"],
        "worker": ["solo-worker-0.team.svc:2222", "solo-worker-1.team.svc:2222"],
    },
    "task": {"type": "worker", "index": 1},
    "environment": "cloud",
}
VERTEX = {
    "cluster": {
        "workerpool0": ["cmle-training-workerpool0-ab-0:2222"],
        "workerpool1": ["cmle-training-workerpool1-ab-0:2222", "cmle-training-workerpool1-ab-1:2222"],
    },
    "environment": "cloud",
    "task": {"type": "workerpool1", "index": 0, "trial": ""},
    "job": '{"python_module":"","package_uris":[]}',
}
SLURM = {
    "SLURM_JOB_ID": "71",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[9-10]",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
}
JOBSET = {
    "JOBSET_NAME": "solo",
    "REPLICATED_JOB_NAME": "worker",
    "JOB_COMPLETION_INDEX": "1",
    "NUM_WORKERS": "2",
}
INDEXED_JOB = {"JOB_NAME": "solo", "SERVICE_NAME": "solo-net", "JOB_COMPLETION_INDEX": "0", "NUM_WORKERS": "2"}

CASES = {
    "tf_config": ({"TF_CONFIG": json.dumps(TF_CONFIG)}, ("a:1", "b:2", "c:3"), 2),
    "tfjob worker ranks after the chief": (
        {"TF_CONFIG": json.dumps(TFJOB)},
        ("solo-chief-0.team.svc:2222", "solo-worker-0.team.svc:2222", "solo-worker-1.team.svc:2222"),
        2,
    ),
    "tfjob chief": (
        {"TF_CONFIG": json.dumps(TFJOB | {"task": {"type": "chief", "index": 0}})},
        ("solo-chief-0.team.svc:2222", "solo-worker-0.team.svc:2222", "solo-worker-1.team.svc:2222"),
        0,
    ),
    "tfjob master and an empty role": (
        {
            "TF_CONFIG": '{"cluster": {"master": ["m:1"], "worker": ["w:1"], "ps": []},'
            ' "task": {"type": "worker", "index": "0"}}'
        },
        ("m:1", "w:1"),
        1,
    ),
    "vertex second pool ranks after the first": (
        {"CLUSTER_SPEC": json.dumps(VERTEX)},
        (
            "cmle-training-workerpool0-ab-0:2222",
            "cmle-training-workerpool1-ab-0:2222",
            "cmle-training-workerpool1-ab-1:2222",
        ),
        1,
    ),
    "tf_config before slurm": ({"TF_CONFIG": json.dumps(TF_CONFIG)} | SLURM, ("a:1", "b:2", "c:3"), 2),
    "empty tf_config is no cluster": (
        {"TF_CONFIG": "{}"} | JOBSET,
        ("solo-worker-0-0.solo:2222", "solo-worker-0-1.solo:2222"),
        1,
    ),
    "slurm, ranks by number and not by text": (SLURM, ("node9:21088", "node10:21089"), 1),
    "slurm, several tasks a node": (
        SLURM
        | {
            "SLURM_STEP_NODELIST": "gpu[9-10,12],login1",
            "SLURM_STEP_NUM_TASKS": "7",
            "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
            "SLURM_PROCID": "5",
            "SLURM_NODEID": "2",
        },
        ("gpu9:21088", "gpu9:21089", "gpu10:21090", "gpu10:21091", "gpu12:21092", "gpu12:21093", "login1:21094"),
        5,
    ),
    "jobset": (JOBSET, ("solo-worker-0-0.solo:2222", "solo-worker-0-1.solo:2222"), 1),
    "indexed job": (INDEXED_JOB, ("solo-0.solo-net:2222", "solo-1.solo-net:2222"), 0),
    "one slurm task without a step": ({"SLURM_JOB_ID": "71", "SLURM_NTASKS": "1"}, None, None),
    "nothing": ({"HOME": "/root", "TF_CONFIG": ""}, None, None),
}


@pytest.mark.parametrize(("environ", "workers", "index"), CASES.values(), ids=CASES.keys())
def test_resolves(environ, workers, index):
    cluster = resolve_cluster(environ)
    if workers is None:
        assert cluster is None
        return
    assert (cluster.workers, cluster.index) == (workers, index)
    assert cluster.is_chief == (index == 0)
    assert cluster.num_workers == len(workers)


def without(environ, name):
    return {key: value for key, value in environ.items() if key != name}


def tf_config(**changes):
    return {"TF_CONFIG": json.dumps(TF_CONFIG | changes)}


def vertex(**changes):
    return {"CLUSTER_SPEC": json.dumps(VERTEX | changes)}


ERRORS = {
    "not json": ({"TF_CONFIG": "{cluster"}, "TF_CONFIG is not JSON"),
    "not an object": ({"TF_CONFIG": "[1]"}, "TF_CONFIG must be a JSON object"),
    "hosts not a list": (tf_config(cluster={"worker": "a:1"}), 'TF_CONFIG: "cluster" must map roles'),
    "no task": (tf_config(task=None), 'TF_CONFIG has no "task"'),
    "task without index": (tf_config(task={"type": "worker"}), 'TF_CONFIG has no "task"'),
    "index no number": (tf_config(task={"type": "worker", "index": "x"}), "\"index\" 'x' is not a number"),
    "index too high": (tf_config(task={"type": "worker", "index": 3}), "this task is worker 3, which"),
    "evaluator process": (tf_config(task={"type": "evaluator", "index": 0}), "has the role 'evaluator'"),
    "parameter servers": (tf_config(cluster={"worker": ["a:1"], "ps": ["b:1"]}), "has the role 'ps'"),
    "sparse cluster": ({"TF_CONFIG": '{"sparseCluster": {"worker": {"0": "a:1"}}}'}, "enableDynamicWorker: false"),
    "no port": (tf_config(cluster={"worker": ["a", "b:1", "c:1"]}), "worker 'a' is not host:port"),
    "repeated": (tf_config(cluster={"worker": ["a:1", "b:1", "a:1"]}), "a:1 is listed for more than one"),
    "vertex without cluster": (vertex(cluster={}), 'CLUSTER_SPEC has no "cluster"'),
    "vertex reduction servers": (
        vertex(cluster=VERTEX["cluster"] | {"workerpool2": ["r:1"]}),
        "CLUSTER_SPEC has workerpool2",
    ),
    "vertex without task": (vertex(task={}), 'CLUSTER_SPEC has no "task"'),
    "slurm without srun": ({"SLURM_JOB_ID": "71", "SLURM_NTASKS": "2"}, "SLURM_STEP_NODELIST is not set"),
    "slurm counts differ": (SLURM | {"SLURM_STEP_NUM_TASKS": "3"}, "SLURM_STEP_TASKS_PER_NODE=1(x2) does not fit"),
    "slurm cyclic": (
        SLURM | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"},
        "Give srun --distribution=block",
    ),
    "slurm rank": (SLURM | {"SLURM_PROCID": "2"}, "SLURM_PROCID=2 is not one of"),
    "slurm nodelist": (SLURM | {"SLURM_STEP_NODELIST": "node[9-"}, "SLURM_STEP_NODELIST='node[9-'"),
    "slurm range": (SLURM | {"SLURM_STEP_NODELIST": "node[10-9]"}, "SLURM_STEP_NODELIST='node[10-9]'"),
    "slurm tasks": (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "two"}, "SLURM_STEP_TASKS_PER_NODE='two'"),
    "slurm text": (SLURM | {"SLURM_PROCID": "one"}, "SLURM_PROCID='one' is not a number"),
    "jobset index": (JOBSET | {"JOB_COMPLETION_INDEX": "2"}, "JOB_COMPLETION_INDEX=2 is not below NUM_WORKERS=2"),
    **{
        f"slurm without {name}": (without(SLURM, name), f"{name} is not set")
        for name in list(SLURM)[1:]
        if "NODELIST" not in name
    },
    **{f"jobset without {name}": (without(JOBSET, name), f"{name} is not set") for name in list(JOBSET)[1:]},
    **{
        f"indexed job without {name}": (without(INDEXED_JOB, name), f"{name} is not set")
        for name in ("JOB_NAME", "SERVICE_NAME", "NUM_WORKERS")
    },
}


@pytest.mark.parametrize(("environ", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_names_what_is_wrong(environ, message):
    with pytest.raises(ClusterError) as error:
        resolve_cluster(environ)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_flags_take_precedence():
    cluster = resolve_cluster(SLURM, ["a:1", "b:1"], 0)
    assert (cluster.workers, cluster.index) == (("a:1", "b:1"), 0)


@pytest.mark.parametrize(
    ("workers", "index", "message"),
    [
        ([], 0, "without --workers"),
        (["a:1"], None, "without --worker_index"),
        (["a:1"], 1, "index 1 is not one of 1 workers"),
        (["a"], 0, "is not host:port"),
    ],
)
def test_wrong_flags(workers, index, message):
    with pytest.raises(ClusterError, match=message):
        resolve_cluster({}, workers, index)


@pytest.mark.parametrize(
    ("nodelist", "nodes"),
    [
        ("login", ["login"]),
        ("gpu[9-10,12]", ["gpu9", "gpu10", "gpu12"]),
        ("node[001-003],login1", ["node001", "node002", "node003", "login1"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("rack[1-2]-n[7,9]", ["rack1-n7", "rack1-n9", "rack2-n7", "rack2-n9"]),
        ("a[1-2].cluster,b-3", ["a1.cluster", "a2.cluster", "b-3"]),
    ],
)
def test_expand_nodelist(nodelist, nodes):
    assert expand_nodelist(nodelist) == nodes


def test_slurm_ports_differ_between_steps_requeues_and_neighbouring_jobs():
    variants = [
        SLURM | {"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step), "SLURM_RESTART_COUNT": str(restart)}
        for job in (71, 72, 73)
        for step in (0, 1)
        for restart in (0, 1, 2)
    ]
    ports = [worker.rpartition(":")[2] for variant in variants for worker in resolve_cluster(variant).workers]
    assert len(set(ports)) == len(ports)
    assert all(12_000 <= int(port) < 32_000 for port in ports)


def test_slurm_cluster_is_the_same_in_all_tasks():
    tasks = [SLURM | {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in (0, 1)]
    first, second = (resolve_cluster(task) for task in tasks)
    assert first.workers == second.workers
    assert (first.index, second.index) == (0, 1)


def test_tf_config_round_trip():
    cluster = Cluster(("a:1", "b:2"), 1)
    again = resolve_cluster({"TF_CONFIG": cluster.tf_config()})
    assert (again.workers, again.index) == (cluster.workers, cluster.index)


def test_does_not_import_tensorflow():
    modules = "solo_dist.distributed.cluster.resolve, solo_dist.distributed.exit_codes, solo_dist.distributed.job"
    code = f"import sys, {modules}; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_workers_wait_until_all_of_them_are_there():
    ports = free_ports(3)
    cluster = tuple(f"localhost:{port}" for port in ports)
    all_there = threading.Barrier(3)

    def work(index: int) -> None:
        wait_for_workers(Cluster(cluster, index))
        with socket.create_server(("localhost", ports[index])):  # as TensorFlow's server, which comes next
            all_there.wait(timeout=60)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        early = [pool.submit(work, index) for index in (0, 1)]
        assert not concurrent.futures.wait(early, timeout=1).done
        for future in [*early, pool.submit(work, 2)]:
            future.result(timeout=60)
