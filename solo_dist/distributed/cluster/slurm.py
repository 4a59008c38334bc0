"""Slurm: one task of a job step is one worker."""

import re
from collections.abc import Mapping

from solo_dist.distributed.cluster.cluster import Cluster, ClusterError
from solo_dist.distributed.cluster.environment import number, required

_SOURCE = "Slurm"
_PORTS = range(12_000, 32_000)  # below the ports that Linux hands out on its own (32768 and up)
_PORTS_PER_JOB = 128


def from_slurm(environ: Mapping[str, str]) -> Cluster | None:
    """The cluster of a job step; None for a batch script of one task. Raises ClusterError."""
    if "SLURM_STEP_NODELIST" not in environ:
        if int(environ.get("SLURM_NTASKS", "1") or 1) > 1:
            raise ClusterError(
                "SLURM_STEP_NODELIST is not set although SLURM_NTASKS is above 1: the process was started in the batch "
                "script itself. Start it with srun, as launch/slurm/train.sbatch does."
            )
        return None
    rank = number(environ, "SLURM_PROCID", _SOURCE)
    total = number(environ, "SLURM_STEP_NUM_TASKS", _SOURCE)
    nodes = expand_nodelist(environ["SLURM_STEP_NODELIST"])
    tasks = _tasks_per_node(required(environ, "SLURM_STEP_TASKS_PER_NODE", _SOURCE))
    if len(tasks) != len(nodes) or sum(tasks) != total:
        raise ClusterError(
            f"SLURM_STEP_TASKS_PER_NODE={environ['SLURM_STEP_TASKS_PER_NODE']} does not fit "
            f"SLURM_STEP_NODELIST={environ['SLURM_STEP_NODELIST']} and SLURM_STEP_NUM_TASKS={total}."
        )
    node_of_rank = [node for node, count in enumerate(tasks) for _ in range(count)]
    if not rank < total:
        raise ClusterError(f"SLURM_PROCID={rank} is not one of SLURM_STEP_NUM_TASKS={total} tasks.")
    if node_of_rank[rank] != number(environ, "SLURM_NODEID", _SOURCE):
        raise ClusterError(
            f"SLURM_NODEID={environ['SLURM_NODEID']}, but tasks in blocks would place task {rank} on node number "
            f"{node_of_rank[rank]}. Give srun --distribution=block."
        )
    first_port = _first_port(environ, total)
    workers = tuple(f"{nodes[node]}:{first_port + index}" for index, node in enumerate(node_of_rank))
    return Cluster(workers, rank, _SOURCE)


def _first_port(environ: Mapping[str, str], total: int) -> int:
    """First port of a job step: equal in all tasks, different for steps and requeues of one job and for neighbours.

    Every task has its own port, whatever its node, because node names may be aliases of one machine.
    """
    step = number(environ, "SLURM_STEP_ID", _SOURCE) * 37 + int(environ.get("SLURM_RESTART_COUNT") or 0) * 11
    slots = max(1, (len(_PORTS) - total) // _PORTS_PER_JOB)
    return _PORTS.start + (number(environ, "SLURM_JOB_ID", _SOURCE) + step) % slots * _PORTS_PER_JOB


def expand_nodelist(nodelist: str) -> list[str]:
    """Expands Slurm's compressed host list in its own order: "gpu[9-10,12],login" -> gpu9, gpu10, gpu12, login.

    Slurm ranks tasks in the order of this list. Zero padding is kept ([08-10] -> 08, 09, 10), and a name may hold
    several brackets. Raises ClusterError if the list is malformed.
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
