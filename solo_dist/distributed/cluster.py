"""Who the workers are and which one this process is, from the environment that a launcher or scheduler provides.

    cluster = resolve_cluster(os.environ)                    # None where nothing describes a cluster
    cluster.workers, cluster.index, cluster.is_chief

In order of precedence: the flags --workers and --worker_index, TF_CONFIG (solo-dist launch, Kubeflow TFJob, Vertex AI),
CLUSTER_SPEC (Vertex AI), Slurm, Kubernetes JobSet, Kubernetes indexed Job. An environment that announces a cluster but
does not describe it completely is an error that names the variable; nothing is guessed.

Pure Python: imports no TensorFlow.
"""

import contextlib
import dataclasses
import json
import logging
import math
import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from solo_dist.errors import ConfigError

KUBERNETES_PORT = 2222
_SLURM_PORTS = range(12_000, 32_000)  # below the ports that Linux hands out on its own (32768 and up)
_SLURM_PORTS_PER_JOB = 128
_CONNECT_SECONDS, _WAIT_SECONDS, _TELL_SECONDS = 5.0, 0.2, 30.0

log = logging.getLogger(__name__)


class ClusterError(ConfigError):
    """An environment or flags that do not describe a cluster; the message names the variable and the remedy."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The worker processes of one job; the first is the chief, which writes what all share."""

    workers: tuple[str, ...]
    """host:port of every worker, in the order of ranks, the same tuple in every process."""
    index: int
    """Rank of this process."""
    source: str = "flags"
    """What described the cluster, for messages."""

    def __post_init__(self) -> None:
        if not self.workers:
            raise ClusterError(f"{self.source}: there are no workers.")
        for worker in self.workers:
            host, _, port = worker.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ClusterError(f"{self.source}: worker {worker!r} is not host:port, for example node1:2222.")
        repeated = sorted({worker for worker in self.workers if self.workers.count(worker) > 1})
        if repeated:
            raise ClusterError(f"{self.source}: {', '.join(repeated)} is listed for more than one worker.")
        if not 0 <= self.index < len(self.workers):
            raise ClusterError(f"{self.source}: index {self.index} is not one of {len(self.workers)} workers.")

    @property
    def num_workers(self) -> int:
        """Number of worker processes."""
        return len(self.workers)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes checkpoints and logs."""
        return self.index == 0

    def tf_config(self) -> str:
        """The cluster as the JSON that TensorFlow expects in TF_CONFIG."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.workers)}, "task": task})


def wait_for_workers(cluster: Cluster) -> None:
    """Returns when something listens on the ports of all other workers, as this one does meanwhile on its own.

    TensorFlow waits for them too, but keeps the interpreter to itself: no signal would be handled and no thread run.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # in use: TensorFlow will say so
            stack.enter_context(_listen(int(cluster.workers[cluster.index].rpartition(":")[2])))
        for address in cluster.workers[: cluster.index] + cluster.workers[cluster.index + 1 :]:
            tell = time.monotonic() + _TELL_SECONDS
            while not _is_there(address):
                if time.monotonic() > tell:
                    log.warning("still waiting for worker %s", address)
                    tell = math.inf
                time.sleep(_WAIT_SECONDS)


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _is_there(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS) as connection:
            # To reach a free port of its own host the system may pick that very port, and connect it to itself.
            return connection.getsockname() != connection.getpeername()
    except OSError:
        return False


def resolve_cluster(
    environ: Mapping[str, str], workers: Sequence[str] = (), worker_index: int | None = None
) -> Cluster | None:
    """Finds the cluster that this process belongs to.

    Args:
      environ: environment variables, usually os.environ.
      workers: --workers, host:port of every worker in the order of ranks; takes precedence over the environment.
      worker_index: --worker_index, the rank of this process.

    Returns:
      The cluster, or None where neither flags nor environment announce one.

    Raises:
      ClusterError: where one is announced and not described completely; names the flag or the variable.
    """
    if workers or worker_index is not None:
        return _from_flags(workers, worker_index)
    for announced_by, resolve in _RESOLVERS:
        cluster = resolve(environ) if environ.get(announced_by) else None
        if cluster is not None:
            return cluster
    return None


def _from_flags(workers: Sequence[str], worker_index: int | None) -> Cluster:
    if not workers:
        raise ClusterError("--worker_index is given without --workers=host:port,host:port,...")
    if worker_index is None:
        raise ClusterError(
            "--workers is given without --worker_index, the rank of this process (0 is the first worker)."
        )
    return Cluster(tuple(workers), worker_index, "--workers and --worker_index")


# TF_CONFIG: solo-dist launch, Kubeflow TFJob, Vertex AI, by hand.


def _from_tf_config(environ: Mapping[str, str]) -> Cluster | None:
    spec = _parse_json(environ, "TF_CONFIG")
    if "sparseCluster" in spec:
        raise ClusterError("TF_CONFIG has a sparseCluster; set enableDynamicWorker: false in the TFJob.")
    if not spec.get("cluster"):
        return None  # TensorFlow, too, takes {} and a lone "environment" for a job of one process
    groups = _hosts_by_role(spec["cluster"], "TF_CONFIG")
    unused = sorted(set(groups) - {"chief", "master", "worker"})
    role, index = _task(spec, "TF_CONFIG")
    if unused or role not in ("chief", "master", "worker"):
        raise ClusterError(
            f"TF_CONFIG has the role {(unused or [role])[0]!r}; training has chief and workers only: there are no "
            "parameter servers, and evaluation runs inside the training job. Remove that replica."
        )
    return _ranked(groups, ("chief", "master", "worker"), role, index, "TF_CONFIG")


# Vertex AI: CLUSTER_SPEC holds the worker pools; the first is the chief, the second the other workers.


def _from_cluster_spec(environ: Mapping[str, str]) -> Cluster:
    spec = _parse_json(environ, "CLUSTER_SPEC")
    if not spec.get("cluster"):
        raise ClusterError('CLUSTER_SPEC has no "cluster"; on Vertex AI the service sets it, else unset the variable.')
    groups = _hosts_by_role(spec["cluster"], "CLUSTER_SPEC")
    role, index = _task(spec, "CLUSTER_SPEC")
    unused = sorted((set(groups) | {role}) - {"workerpool0", "workerpool1"})
    if unused:
        raise ClusterError(
            f"CLUSTER_SPEC has {', '.join(unused)}; only the first two entries of workerPoolSpecs train (no parameter "
            "servers, reduction servers or evaluators). Remove the others."
        )
    return _ranked(groups, ("workerpool0", "workerpool1"), role, index, "CLUSTER_SPEC")


def _parse_json(environ: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        spec = json.loads(environ[name])
    except json.JSONDecodeError as error:
        raise ClusterError(f"{name} is not JSON ({error}); it starts with {environ[name][:40]!r}.") from error
    if not isinstance(spec, dict):
        raise ClusterError(f'{name} must be a JSON object with "cluster" and "task", it is {environ[name][:40]!r}.')
    return spec


def _hosts_by_role(cluster: Any, name: str) -> dict[str, list[str]]:
    valid = isinstance(cluster, dict) and all(
        isinstance(hosts, list) and all(isinstance(host, str) for host in hosts) for hosts in cluster.values()
    )
    if not valid:
        raise ClusterError(f'{name}: "cluster" must map roles to lists of host:port, it is {cluster!r}.')
    return {role: hosts for role, hosts in cluster.items() if hosts}


def _task(spec: Mapping[str, Any], name: str) -> tuple[str, int]:
    task = spec.get("task")
    if not isinstance(task, dict) or "type" not in task or "index" not in task:
        raise ClusterError(f'{name} has no "task" with "type" and "index", which tell the process who it is.')
    try:
        return str(task["type"]), int(task["index"])
    except (TypeError, ValueError) as error:
        raise ClusterError(f'{name}: task "index" {task["index"]!r} is not a number.') from error


def _ranked(groups: dict[str, list[str]], order: Sequence[str], role: str, index: int, name: str) -> Cluster:
    """Ranks the hosts of all roles in the given order of roles, and finds this task among them."""
    if role not in groups or not 0 <= index < len(groups[role]):
        raise ClusterError(f'{name}: this task is {role} {index}, which "cluster" does not list.')
    before = sum(len(groups.get(other, ())) for other in order[: order.index(role)])
    workers = tuple(host for other in order for host in groups.get(other, ()))
    return Cluster(workers, before + index, name)


# Slurm: one task of a job step is one worker.


def _from_slurm(environ: Mapping[str, str]) -> Cluster | None:
    if "SLURM_STEP_NODELIST" not in environ:
        if int(environ.get("SLURM_NTASKS", "1") or 1) > 1:
            raise ClusterError(
                "SLURM_STEP_NODELIST is not set although SLURM_NTASKS is above 1: the process was started in the batch "
                "script itself. Start it with srun, as launch/slurm/train.sbatch does."
            )
        return None
    rank = _number(environ, "SLURM_PROCID")
    total = _number(environ, "SLURM_STEP_NUM_TASKS")
    nodes = expand_nodelist(environ["SLURM_STEP_NODELIST"])
    tasks = _tasks_per_node(_required(environ, "SLURM_STEP_TASKS_PER_NODE", "Slurm"))
    if len(tasks) != len(nodes) or sum(tasks) != total:
        raise ClusterError(
            f"SLURM_STEP_TASKS_PER_NODE={environ['SLURM_STEP_TASKS_PER_NODE']} does not fit "
            f"SLURM_STEP_NODELIST={environ['SLURM_STEP_NODELIST']} and SLURM_STEP_NUM_TASKS={total}."
        )
    node_of_rank = [node for node, count in enumerate(tasks) for _ in range(count)]
    if not rank < total:
        raise ClusterError(f"SLURM_PROCID={rank} is not one of SLURM_STEP_NUM_TASKS={total} tasks.")
    if node_of_rank[rank] != _number(environ, "SLURM_NODEID"):
        raise ClusterError(
            f"SLURM_NODEID={environ['SLURM_NODEID']}, but tasks in blocks would place task {rank} on node number "
            f"{node_of_rank[rank]}. Give srun --distribution=block."
        )
    first_port = _slurm_port(environ, total)
    workers = tuple(f"{nodes[node]}:{first_port + index}" for index, node in enumerate(node_of_rank))
    return Cluster(workers, rank, "Slurm")


def _slurm_port(environ: Mapping[str, str], total: int) -> int:
    """First port of a job step: equal in all tasks, different for steps and requeues of one job and for neighbours.

    Every task has its own port, whatever its node, because node names may be aliases of one machine.
    """
    step = _number(environ, "SLURM_STEP_ID") * 37 + int(environ.get("SLURM_RESTART_COUNT") or 0) * 11
    slots = max(1, (len(_SLURM_PORTS) - total) // _SLURM_PORTS_PER_JOB)
    return _SLURM_PORTS.start + (_number(environ, "SLURM_JOB_ID") + step) % slots * _SLURM_PORTS_PER_JOB


def expand_nodelist(nodelist: str) -> list[str]:
    """Expands Slurm's compressed host list in its own order: "gpu[9-10,12],login" -> gpu9, gpu10, gpu12, login.

    Slurm ranks tasks in the order of this list. Zero padding is kept ([08-10] -> 08, 09, 10), and a name may hold
    several brackets. Raises ClusterError where the list is malformed.
    """
    names = []
    for entry in _split_outside_brackets(nodelist):
        expanded = [""]
        for literal, ranges in re.findall(r"([^\[\]]+)|\[([^\[\]]+)\]", entry):
            parts = [literal] if literal else _expand_ranges(ranges, nodelist)
            expanded = [name + part for name in expanded for part in parts]
        names.extend(expanded)
    return names


def _split_outside_brackets(nodelist: str) -> list[str]:
    entries = re.findall(r"(?:[^,\[\]]|\[[^\[\]]+\])+", nodelist)
    if not entries or ",".join(entries) != nodelist:
        raise ClusterError(f"SLURM_STEP_NODELIST={nodelist!r} is not a list of nodes such as gpu[9-10,12],login.")
    return entries


def _expand_ranges(ranges: str, nodelist: str) -> list[str]:
    numbers = []
    for item in ranges.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ClusterError(f"SLURM_STEP_NODELIST={nodelist!r} holds the range [{item}], which is not low-high.")
        width = len(match[1])
        numbers += [f"{number:0{width}d}" for number in range(int(match[1]), int(match[2] or match[1]) + 1)]
    return numbers


def _tasks_per_node(text: str) -> list[int]:
    """Expands Slurm's "2(x3),1" to [2, 2, 2, 1]."""
    counts = []
    for item in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", item)
        if not match:
            raise ClusterError(f"SLURM_STEP_TASKS_PER_NODE={text!r} is not of the form 2(x3),1.")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


# Kubernetes: pods of one indexed Job find each other by the names that a headless service gives them.


def _from_jobset(environ: Mapping[str, str]) -> Cluster:
    """JobSet names its pods <jobset>-<replicated job>-<job index>-<completion index>.<jobset>."""
    jobset = environ["JOBSET_NAME"]
    prefix = f"{jobset}-{_required(environ, 'REPLICATED_JOB_NAME', 'Kubernetes JobSet')}-0"
    return _indexed_pods(environ, prefix, jobset, "Kubernetes JobSet")


def _from_indexed_job(environ: Mapping[str, str]) -> Cluster:
    """An indexed Job with a subdomain names its pods <job>-<completion index>.<service>."""
    job = _required(environ, "JOB_NAME", "Kubernetes indexed Job")
    service = _required(environ, "SERVICE_NAME", "Kubernetes indexed Job")
    return _indexed_pods(environ, job, service, "Kubernetes indexed Job")


def _indexed_pods(environ: Mapping[str, str], prefix: str, domain: str, source: str) -> Cluster:
    index = _number(environ, "JOB_COMPLETION_INDEX", source)
    total = _number(environ, "NUM_WORKERS", source)
    if not index < total:
        raise ClusterError(f"JOB_COMPLETION_INDEX={index} is not below NUM_WORKERS={total}; set it to the completions.")
    return Cluster(tuple(f"{prefix}-{rank}.{domain}:{KUBERNETES_PORT}" for rank in range(total)), index, source)


def _required(environ: Mapping[str, str], name: str, source: str) -> str:
    if not environ.get(name):
        raise ClusterError(f"{name} is not set; with {source} it is needed, see launch/README.md.")
    return environ[name]


def _number(environ: Mapping[str, str], name: str, source: str = "Slurm") -> int:
    text = _required(environ, name, source)
    if not text.isdigit():
        raise ClusterError(f"{name}={text!r} is not a number.")
    return int(text)


_RESOLVERS = (
    ("TF_CONFIG", _from_tf_config),
    ("CLUSTER_SPEC", _from_cluster_spec),
    ("SLURM_JOB_ID", _from_slurm),
    ("JOBSET_NAME", _from_jobset),
    ("JOB_COMPLETION_INDEX", _from_indexed_job),
)
