"""How the global batch is divided into replicas and micro-batches on the machine at hand."""

from typing import NamedTuple

from solo_dist.config import TrainConfig
from solo_dist.errors import ConfigError


class BatchPlan(NamedTuple):
    """global batch = micro_batch * accumulation * replicas."""

    micro_batch: int
    """Images a replica processes at a time."""
    accumulation: int
    """Micro-batches an optimizer step."""
    replicas: int

    @property
    def replica_batch(self) -> int:
        """Images of one replica in one optimizer step."""
        return self.micro_batch * self.accumulation

    def describe(self) -> str:
        """One line for the log."""
        global_batch = self.replica_batch * self.replicas
        return (
            f"global batch {global_batch} = {self.micro_batch} images x {self.accumulation} accumulated micro-batches "
            f"x {self.replicas} replicas"
        )


def plan_batch(train: TrainConfig, replicas: int, fitting: int) -> BatchPlan:
    """Derives micro-batch and accumulation from the global batch.

    Args:
      train: global_batch and micro_batch of the config.
      replicas: replicas over all workers.
      fitting: images a replica's memory holds at a time; used if micro_batch is auto.

    Raises:
      ConfigError: the numbers do not divide; the message names values that would work.
    """
    if train.global_batch % replicas:
        below = train.global_batch // replicas * replicas
        works = f"{below} or {below + replicas}" if below else f"{replicas}"
        raise ConfigError(
            f"train.global_batch={train.global_batch} cannot be shared by {replicas} replicas; "
            f"{works} would work, or another number of replicas."
        )
    replica_batch = train.global_batch // replicas
    divisors = [number for number in range(1, replica_batch + 1) if replica_batch % number == 0]
    if train.micro_batch == "auto":
        micro = max(number for number in divisors if number <= max(1, fitting))
    else:
        micro = int(train.micro_batch)
        if micro not in divisors:
            raise ConfigError(
                f"train.micro_batch={micro} does not divide the {replica_batch} images that each of {replicas} "
                f"replicas has of train.global_batch={train.global_batch}; {', '.join(map(str, divisors))} or auto "
                "would work."
            )
    return BatchPlan(micro, replica_batch // micro, replicas)
