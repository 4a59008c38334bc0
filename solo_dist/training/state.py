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
        """All variables by their names in a checkpoint."""

    def restore(self, arrays: Mapping[str, np.ndarray], source: str) -> None:
        """Assigns the arrays of a checkpoint. Raises CheckpointError if they are of another model."""
        variables, arrays = dict(self.variables), dict(arrays)
        for name in FLOAT16_STATE:  # the run may continue in another precision
            if (name in variables) != (name in arrays):
                (variables if name in variables else arrays).pop(name)
        assign_arrays(variables, arrays, source)

    def verify_replicas(self, when: str) -> dict[str, np.ndarray]:
        """A collective: checks that all replicas have equal weights.

        Args:
          when: for the message if they differ, such as "at step 10".

        Returns:
          The weights of this worker's first replica, by the names of the checkpoint. They had to be copied off the
          device to be compared, and whoever needs them should not copy them again.
        Raises:
          ReplicasDiffer: the weights of some replica, here or on another worker, are not the same bits.
        """
        weights: dict[str, np.ndarray] = {}
        checksums = [0] * len(self._strategy.extended.worker_devices)
        for name, variable in self.variables.items():
            if name.startswith(MODEL):
                copies = [_copy(replica) for replica in self._strategy.experimental_local_results(variable)]
                checksums = [google_crc32c.extend(*pair) for pair in zip(checksums, map(_bytes, copies), strict=True)]
                weights[name] = copies[0]
        verify_equal(self._strategy, checksums, when)
        return weights

    def copy_to_host(self, when: str) -> dict[str, np.ndarray]:
        """All variables, by the names of the checkpoint: the weights that `verify_replicas` returns, and the rest.

        Contains the collective of `verify_replicas`, so every other worker calls this or that function.
        """
        weights = self.verify_replicas(when)
        rest = {name: variable for name, variable in self.variables.items() if name not in weights}
        return weights | {name: _copy(self._strategy.experimental_local_results(v)[0]) for name, v in rest.items()}


def _copy(variable: Any) -> np.ndarray:
    return np.array(variable.numpy())  # np.array: the value of a variable on the CPU shares the variable's memory


def _bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()
