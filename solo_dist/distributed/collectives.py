"""Values that workers exchange outside the training step: numbers, yes or no, and checksums that must be equal."""

from collections.abc import Sequence

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


def gather_from_workers(strategy: tf.distribute.Strategy, mine: int) -> list[int]:
    """A collective: the integer of each worker, once for each of its replicas."""
    return gather(strategy, [mine] * len(strategy.extended.worker_devices))


def any_worker(strategy: tf.distribute.Strategy, mine: bool) -> bool:
    """A collective: whether any worker says True."""
    return any(gather_from_workers(strategy, int(mine)))


def verify_equal(strategy: tf.distribute.Strategy, checksums: Sequence[int], when: str) -> None:
    """A collective: raises ReplicasDiffer unless the checksums of the weights of all replicas are equal.

    Args:
      checksums: one for each replica of this process.
      when: for the message, such as "at step 10".
    """
    everywhere = gather(strategy, checksums)
    if len(set(everywhere)) > 1:
        raise ReplicasDiffer(
            f"The weights differ between replicas {when} (checksums {everywhere}). Check that all workers see the same "
            "--workdir, and start again."
        )
