"""Clusters as JSON with "cluster" and "task", which TF_CONFIG and Vertex AI's CLUSTER_SPEC have in common."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from solo_dist.distributed.cluster.cluster import Cluster, ClusterError


def parse(environ: Mapping[str, str], name: str) -> dict[str, Any]:
    """The JSON object in an environment variable. Raises ClusterError."""
    try:
        spec = json.loads(environ[name])
    except json.JSONDecodeError as error:
        raise ClusterError(f"{name} is not JSON ({error}); it starts with {environ[name][:40]!r}.") from error
    if not isinstance(spec, dict):
        raise ClusterError(f'{name} must be a JSON object with "cluster" and "task", it is {environ[name][:40]!r}.')
    return spec


def hosts_by_role(cluster: Any, name: str) -> dict[str, list[str]]:
    """The value of "cluster": lists of host:port by role, without empty ones. Raises ClusterError."""
    valid = isinstance(cluster, dict) and all(
        isinstance(hosts, list) and all(isinstance(host, str) for host in hosts) for hosts in cluster.values()
    )
    if not valid:
        raise ClusterError(f'{name}: "cluster" must map roles to lists of host:port, it is {cluster!r}.')
    return {role: hosts for role, hosts in cluster.items() if hosts}


def task(spec: Mapping[str, Any], name: str) -> tuple[str, int]:
    """The value of "task": role of this process, and its index among those of the role. Raises ClusterError."""
    found = spec.get("task")
    if not isinstance(found, dict) or "type" not in found or "index" not in found:
        raise ClusterError(f'{name} has no "task" with "type" and "index", which tell the process who it is.')
    try:
        return str(found["type"]), int(found["index"])
    except (TypeError, ValueError) as error:
        raise ClusterError(f'{name}: task "index" {found["index"]!r} is not a number.') from error


def ranked(groups: dict[str, list[str]], order: Sequence[str], role: str, index: int, name: str) -> Cluster:
    """Ranks the hosts of all roles in the given order of roles, and finds this task among them. Raises ClusterError."""
    if role not in groups or not 0 <= index < len(groups[role]):
        raise ClusterError(f'{name}: this task is {role} {index}, which "cluster" does not list.')
    before = sum(len(groups.get(other, ())) for other in order[: order.index(role)])
    workers = tuple(host for other in order for host in groups.get(other, ()))
    return Cluster(workers, before + index, name)
