"""Finds the cluster that this process belongs to, from flags or from the environment.

    cluster = resolve_cluster(os.environ)                    # None if nothing describes a cluster
    cluster.workers, cluster.index, cluster.is_chief

In order of precedence: the flags --workers and --worker_index, TF_CONFIG, CLUSTER_SPEC, Slurm, Kubernetes JobSet,
Kubernetes indexed Job. An environment that announces a cluster but does not describe it completely is an error that
names the variable; nothing is guessed.
"""

from collections.abc import Mapping, Sequence

from solo_dist.distributed.cluster.cluster import Cluster, ClusterError
from solo_dist.distributed.cluster.kubernetes import from_indexed_job, from_jobset
from solo_dist.distributed.cluster.slurm import from_slurm
from solo_dist.distributed.cluster.tf_config import from_tf_config
from solo_dist.distributed.cluster.vertex import from_cluster_spec

_RESOLVERS = (
    ("TF_CONFIG", from_tf_config),
    ("CLUSTER_SPEC", from_cluster_spec),
    ("SLURM_JOB_ID", from_slurm),
    ("JOBSET_NAME", from_jobset),
    ("JOB_COMPLETION_INDEX", from_indexed_job),
)
"""The variable that announces a cluster, and what reads it; in order of precedence."""


def resolve_cluster(
    environ: Mapping[str, str], workers: Sequence[str] = (), worker_index: int | None = None
) -> Cluster | None:
    """Finds the cluster that this process belongs to.

    Args:
      environ: environment variables, usually os.environ.
      workers: --workers, host:port of every worker in the order of ranks; takes precedence over the environment.
      worker_index: --worker_index, the rank of this process.

    Returns:
      The cluster, or None if neither flags nor environment announce one.

    Raises:
      ClusterError: one is announced and not described completely; names the flag or the variable.
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
