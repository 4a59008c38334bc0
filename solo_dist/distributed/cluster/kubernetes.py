"""Kubernetes: pods of one indexed Job find each other by the names that a headless service gives them."""

from collections.abc import Mapping

from solo_dist.distributed.cluster.cluster import Cluster, ClusterError
from solo_dist.distributed.cluster.environment import number, required

_PORT = 2222


def from_jobset(environ: Mapping[str, str]) -> Cluster:
    """The cluster of a JobSet. Raises ClusterError.

    JobSet names its pods <jobset>-<replicated job>-<job index>-<completion index>.<jobset>.
    """
    jobset = environ["JOBSET_NAME"]
    prefix = f"{jobset}-{required(environ, 'REPLICATED_JOB_NAME', 'Kubernetes JobSet')}-0"
    return _indexed_pods(environ, prefix, jobset, "Kubernetes JobSet")


def from_indexed_job(environ: Mapping[str, str]) -> Cluster:
    """The cluster of an indexed Job. Raises ClusterError.

    An indexed Job with a subdomain names its pods <job>-<completion index>.<service>.
    """
    job = required(environ, "JOB_NAME", "Kubernetes indexed Job")
    service = required(environ, "SERVICE_NAME", "Kubernetes indexed Job")
    return _indexed_pods(environ, job, service, "Kubernetes indexed Job")


def _indexed_pods(environ: Mapping[str, str], prefix: str, domain: str, source: str) -> Cluster:
    index = number(environ, "JOB_COMPLETION_INDEX", source)
    total = number(environ, "NUM_WORKERS", source)
    if not index < total:
        raise ClusterError(f"JOB_COMPLETION_INDEX={index} is not below NUM_WORKERS={total}; set it to the completions.")
    return Cluster(tuple(f"{prefix}-{rank}.{domain}:{_PORT}" for rank in range(total)), index, source)
