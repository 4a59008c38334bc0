"""What workers tell each other outside of the training step: yes or no, and whether their weights are the same bits."""

from collections.abc import Iterable, Sequence
from typing import Any

import google_crc32c
import numpy as np
import tensorflow as tf

from solo_dist.errors import RunFailed


class ReplicasDiffer(RunFailed):
    """Replicas that should be equal are not."""


def gather(strategy: tf.distribute.Strategy, mine: Sequence[int]) -> list[int]:
    """A collective: the integers of all replicas, given one for each replica of this process."""
    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant([mine[context.replica_id_in_sync_group % len(mine)]], tf.int64)
    )
    return strategy.gather(values, axis=0).numpy().tolist()


def any_worker(strategy: tf.distribute.Strategy, mine: bool) -> bool:
    """A collective: whether any worker says True."""
    return any(gather(strategy, [int(mine)] * len(strategy.extended.worker_devices)))


def verify_equal(strategy: tf.distribute.Strategy, variables: Iterable[Any], when: str) -> None:
    """A collective: raises ReplicasDiffer where variables are not the same bits on all replicas of all workers."""
    copies = zip(*map(strategy.experimental_local_results, variables), strict=True)
    fingerprints = gather(strategy, [fingerprint(copy) for copy in copies])
    if len(set(fingerprints)) > 1:
        raise ReplicasDiffer(
            f"The weights differ between replicas {when} (checksums {fingerprints}): some worker restored another "
            "checkpoint. Check that all workers see the same --workdir, and start again."
        )


def fingerprint(variables: Iterable[Any]) -> int:
    """CRC-32C over the bytes of variables."""
    value = 0
    for variable in variables:
        value = google_crc32c.extend(value, np.ascontiguousarray(variable.numpy()).tobytes())
    return value
