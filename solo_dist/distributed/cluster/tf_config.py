"""TF_CONFIG, as set by `solo-dist launch`, Kubeflow TFJob and Vertex AI, or by hand."""

from collections.abc import Mapping

from solo_dist.distributed.cluster import json_spec
from solo_dist.distributed.cluster.cluster import Cluster, ClusterError

_ROLES = ("chief", "master", "worker")


def from_tf_config(environ: Mapping[str, str]) -> Cluster | None:
    """The cluster in TF_CONFIG; None if it describes a job of one process. Raises ClusterError."""
    spec = json_spec.parse(environ, "TF_CONFIG")
    if "sparseCluster" in spec:
        raise ClusterError("TF_CONFIG has a sparseCluster; set enableDynamicWorker: false in the TFJob.")
    if not spec.get("cluster"):
        return None  # TensorFlow, too, takes {} and a lone "environment" for a job of one process
    groups = json_spec.hosts_by_role(spec["cluster"], "TF_CONFIG")
    unused = sorted(set(groups) - set(_ROLES))
    role, index = json_spec.task(spec, "TF_CONFIG")
    if unused or role not in _ROLES:
        raise ClusterError(
            f"TF_CONFIG has the role {(unused or [role])[0]!r}; training has chief and workers only: there are no "
            "parameter servers, and evaluation runs inside the training job. Remove that replica."
        )
    return json_spec.ranked(groups, _ROLES, role, index, "TF_CONFIG")
