"""Copies of all variables of a run on the host, and their way back."""

import types

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.distributed.collectives import ReplicasDiffer
from solo_dist.run.checkpoint import CheckpointError
from solo_dist.training.state import RunState


class Part:
    """Stands for an optimizer or a step: what it keeps by name."""

    def __init__(self, variables):
        self._variables = variables

    def state(self):
        return self._variables


def make_state(strategy, **of_step):
    with strategy.scope():
        weight, momentum = tf.Variable([1.0, 2.0]), tf.Variable([3.0])
        step = {f"step/{name}": tf.Variable(value) for name, value in of_step.items()}
    model = types.SimpleNamespace(variables=[types.SimpleNamespace(path="solo/weight", value=weight)])
    return weight, RunState(strategy, model, Part({"optimizer/momentum": momentum}), Part(step))


def test_a_copy_does_not_change_with_the_variables(mirrored):
    for strategy in (tf.distribute.OneDeviceStrategy("CPU:0"), mirrored):
        weight, state = make_state(strategy)
        arrays = state.copy_to_host("now")
        weight.assign([5.0, 6.0])
        assert {name: array.tolist() for name, array in arrays.items()} == {
            "model/solo/weight": [1.0, 2.0],
            "optimizer/momentum": [3.0],
        }
        assert set(state.verify_replicas("now")) == {"model/solo/weight"}
        state.restore(arrays, "the copy")
        np.testing.assert_array_equal(state.copy_to_host("now")["model/solo/weight"], [1.0, 2.0])


def test_replicas_with_other_weights_are_told(mirrored):
    weight, state = make_state(mirrored)
    mirrored.experimental_local_results(weight)[1].assign([1.0, np.nextafter(np.float32(2), np.float32(3))])
    with pytest.raises(ReplicasDiffer, match=r"differ between replicas at step 7 \(checksums \[\d+, \d+\]\)"):
        state.verify_replicas("at step 7")


def test_only_the_loss_scale_may_be_missing_or_too_much():
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    _, plain = make_state(strategy)
    _, scaled = make_state(strategy, loss_scale=8.0, good_steps=3)
    plain.restore(scaled.copy_to_host("now"), "float16")
    scaled.restore(plain.copy_to_host("now"), "float32")
    assert float(scaled.variables["step/loss_scale"]) == 8.0
    arrays = plain.copy_to_host("now")
    del arrays["optimizer/momentum"]
    with pytest.raises(CheckpointError, match="float32 is of another architecture: 1 arrays missing"):
        plain.restore(arrays, "float32")
