"""Vertex AI: CLUSTER_SPEC lists the worker pools; the first pool is the chief, the second the other workers."""

from collections.abc import Mapping

from solo_dist.distributed.cluster import json_spec
from solo_dist.distributed.cluster.cluster import Cluster, ClusterError

_ROLES = ("workerpool0", "workerpool1")


def from_cluster_spec(environ: Mapping[str, str]) -> Cluster:
    """The cluster in CLUSTER_SPEC. Raises ClusterError."""
    spec = json_spec.parse(environ, "CLUSTER_SPEC")
    if not spec.get("cluster"):
        raise ClusterError('CLUSTER_SPEC has no "cluster"; on Vertex AI the service sets it, else unset the variable.')
    groups = json_spec.hosts_by_role(spec["cluster"], "CLUSTER_SPEC")
    role, index = json_spec.task(spec, "CLUSTER_SPEC")
    unused = sorted((set(groups) | {role}) - set(_ROLES))
    if unused:
        raise ClusterError(
            f"CLUSTER_SPEC has {', '.join(unused)}; only the first two entries of workerPoolSpecs train (no parameter "
            "servers, reduction servers or evaluators). Remove the others."
        )
    return json_spec.ranked(groups, _ROLES, role, index, "CLUSTER_SPEC")
