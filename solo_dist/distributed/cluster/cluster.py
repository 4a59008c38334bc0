"""The worker processes of one job.

Pure Python: imports no TensorFlow.
"""

import dataclasses
import json

from solo_dist.errors import ConfigError


class ClusterError(ConfigError):
    """An environment or flags that do not describe a cluster; the message names the variable and the remedy."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The worker processes of one job; the first is the chief, which writes the shared files."""

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
