"""All variables of a run under the names that its checkpoints have, and their copies on the host."""

from collections.abc import Mapping
from typing import Any

import google_crc32c
import numpy as np
import tensorflow as tf

from solo_dist.distributed.collectives import verify_equal
from solo_dist.run.checkpoint import MODEL, assign_arrays
from solo_dist.training.optim import Optimizer
from solo_dist.training.step import FLOAT16_STATE, TrainStep


class RunState:
    """Weights of the model, state of the optimizer, and state of the step."""

    def __init__(self, strategy: tf.distribute.Strategy, model: Any, optimizer: Optimizer, train_step: TrainStep):
        self._strategy = strategy
        weights = {f"{MODEL}{variable.path}": variable.value for variable in model.variables}
        self.variables: dict[str, Any] = weights | optimizer.state() | train_step.state()
        """By the names of the checkpoint."""

    def restore(self, arrays: Mapping[str, np.ndarray], source: str) -> None:
        """Assigns the arrays of a checkpoint. Raises CheckpointError if they are of another model."""
        variables, arrays = dict(self.variables), dict(arrays)
        for name in FLOAT16_STATE:  # the run may continue in another precision
            if (name in variables) != (name in arrays):
                (variables if name in variables else arrays).pop(name)
        assign_arrays(variables, arrays, source)

    def copy_to_host(self, when: str, everything: bool = True) -> dict[str, np.ndarray]:
        """A collective: copies each variable off its device once, and checks that all replicas have equal weights.

        Args:
          when: for the message if they differ, such as "at step 10".
          everything: False leaves out what is not a weight; only the worker that writes checkpoints needs the rest.

        Returns:
          The values of this worker's first replica, by the names of the checkpoint.
        Raises:
          ReplicasDiffer: the weights of some replica, here or on another worker, are not the same bits.
        """
        arrays: dict[str, np.ndarray] = {}
        checksums = [0] * len(self._strategy.extended.worker_devices)
        for name, variable in self.variables.items():
            replicas = self._strategy.experimental_local_results(variable)
            if name.startswith(MODEL):
                # np.array: the value of a variable on the CPU shares the variable's memory.
                copies = [np.array(replica.numpy()) for replica in replicas]
                checksums = [google_crc32c.extend(*pair) for pair in zip(checksums, map(_bytes, copies), strict=True)]
                arrays[name] = copies[0]
            elif everything:
                arrays[name] = np.array(replicas[0].numpy())
        verify_equal(self._strategy, checksums, when)
        return arrays


def _bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()
