"""One optimizer step as one TensorFlow function: fetch, count, accumulate, reduce, guard, apply.

The gradient is that of the global batch, whatever the number of replicas, workers and micro-batches: the numbers of
positives of the whole batch are summed first, the loss of every micro-batch is divided by them, and the gradients are
summed. Replicas communicate before and after the gradients only, so XLA can compile the part in between.

Per replica and step a batch of A*b images arrives (A accumulated micro-batches of b images). Shape legend: config.py.
"""

import functools
import time
from typing import Any, NamedTuple

import tensorflow as tf

from solo_dist.config import Config
from solo_dist.data.schema import NO_IMAGE
from solo_dist.solo.losses import count_positives, solo_loss
from solo_dist.training.optim import Optimizer

_LOSS_PARTS = ("total", "category", "mask")
_MEANS = (*(f"loss/{part}" for part in _LOSS_PARTS), "grad_norm")
"""Metrics that are means of a step, over the applied steps since the last reading."""
_TOTALS = ("targets/dropped_positives", "data/bad_records", "nonfinite_steps")
"""Metrics that are totals of all steps since the last reading."""
_INITIAL_LOSS_SCALE = 2.0**15
_LOSS_SCALE_GROWTH_STEPS = 2000
FLOAT16_STATE = ("step/loss_scale", "step/good_steps")
"""Names of what `TrainStep.state` has in float16 only."""


class StepOutcome(NamedTuple):
    """Results of a call for the training loop; reading a value waits for the call to finish."""

    requests: tf.Tensor
    """float32 [2]: above 0 if any worker was asked to stop, and if any asks for a checkpoint; the same everywhere."""
    nonfinite_run: tf.Tensor
    """int64: steps in a row that were not applied because loss or gradient was not finite."""


class TrainStep:
    """The compiled optimizer step of a model under a strategy.

    Args:
      strategy: the distribution strategy under whose scope model and optimizer were made.
      model: the built network.
      optimizer: updates the model's trainable variables.
      config: the config of the run.
      micro_batch: b, images a replica processes at a time.
      accumulation: A, micro-batches an optimizer step.
      compile_scope: none, loss or step: what XLA compiles.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: Any,
        optimizer: Optimizer,
        config: Config,
        micro_batch: int,
        accumulation: int,
        compile_scope: str,
    ):
        self._strategy, self._model, self._optimizer, self._config = strategy, model, optimizer, config
        self._micro_batch, self._accumulation = micro_batch, accumulation
        self._variables = [variable.value for variable in model.trainable_variables]
        self._loss = (
            tf.function(self._loss_of_outputs, jit_compile=True) if compile_scope == "loss" else self._loss_of_outputs
        )
        gradients = self._loss_and_gradients
        self._micro_gradients = tf.function(gradients, jit_compile=True) if compile_scope == "step" else gradients
        self._make_state()

    def _make_state(self) -> None:
        """Makes metric sums, guard, loss scale, and gradient sums if more than one micro-batch is accumulated."""
        with self._strategy.scope():
            make = lambda value, dtype, name: tf.Variable(value, dtype=dtype, trainable=False, name=name)  # noqa: E731
            self._sums = {name: make(0.0, tf.float32, "sum") for name in ("steps", *_MEANS, *_TOTALS)}
            self._loss_place = make(tf.zeros([len(_LOSS_PARTS)]), tf.float32, "loss_place")
            self._nonfinite_run = make(0, tf.int64, "nonfinite_run")
            self._wait_seconds = make(0.0, tf.float64, "wait_seconds")
            self._scaled = self._config.runtime.precision == "float16"
            if self._scaled:
                self._loss_scale = make(_INITIAL_LOSS_SCALE, tf.float32, "loss_scale")
                self._good_steps = make(0, tf.int64, "good_steps")
            local = {"synchronization": tf.VariableSynchronization.ON_READ, "trainable": False}
            self._suspects = tf.Variable(
                tf.fill([self._micro_batch], tf.constant(NO_IMAGE, tf.int64)),
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                **local,
            )
            if self._accumulation > 1:
                local["aggregation"] = tf.VariableAggregation.SUM
                self._gradient_sums = [tf.Variable(tf.zeros(v.shape, tf.float32), **local) for v in self._variables]
                self._loss_sums = tf.Variable(tf.zeros([len(_LOSS_PARTS)]), **local)

    def state(self) -> dict[str, tf.Variable]:
        """Variables that a checkpoint holds besides model and optimizer."""
        named = {f"step/sum/{name}": variable for name, variable in self._sums.items()}
        named["step/nonfinite_run"] = self._nonfinite_run
        if self._scaled:
            named |= dict(zip(FLOAT16_STATE, (self._loss_scale, self._good_steps), strict=True))
        return named

    @tf.function
    def __call__(self, iterator: Any, count: tf.Tensor, requests: tf.Tensor) -> StepOutcome:
        """Runs `count` optimizer steps on the next batches.

        Args:
          iterator: distributed iterator over the training batches.
          count: int32 scalar.
          requests: float32 [2], 1 if this worker was asked to stop, and 1 if it asks for a checkpoint.
        """
        agreed = tf.zeros([2])
        for _ in tf.range(count):
            agreed = self._one_step(iterator, requests)
        return StepOutcome(agreed, self._first(self._nonfinite_run))

    def _one_step(self, iterator: Any, requests: tf.Tensor) -> tf.Tensor:
        batch = self._fetch(iterator)
        counts = self._strategy.run(self._global_counts, args=(batch, requests))
        if self._accumulation == 1:
            gradients, losses = self._strategy.run(self._micro_step, args=(batch, tf.constant(0), counts))
        else:
            gradients, losses = self._accumulate(batch, counts)
        gradients, losses = self._sum_over_replicas(gradients, losses)
        norm = self._first(self._strategy.run(tf.linalg.global_norm, args=(gradients,)))
        self._guarded_apply(gradients, losses, norm, self._first(counts))
        return self._first(counts)["requests"]

    def _fetch(self, iterator: Any) -> Any:
        """The next batch, and the time that was spent waiting for it."""
        clock = tf.timestamp
        if self._config.runtime.deterministic:  # then tf.timestamp raises; this clock costs a call into Python
            clock = functools.partial(tf.numpy_function, time.perf_counter, [], tf.float64)
        started = clock()
        with tf.control_dependencies([started]):
            batch = next(iterator)
        with tf.control_dependencies(self._strategy.experimental_local_results(batch["image_size"])):
            self._wait_seconds.assign_add(clock() - started)
        # The rest of the step comes after the second reading of the clock. Otherwise a machine with one core may read
        # it last, and count the whole step as waiting.
        return self._strategy.run(_after, args=(batch, self._first(self._wait_seconds).read_value()))

    def _global_counts(self, batch: dict[str, tf.Tensor], requests: tf.Tensor) -> dict[str, tf.Tensor]:
        """Sums over all replicas and micro-batches; the only communication before the gradients."""
        counts = count_positives(batch)
        counts["dropped"] = tf.reduce_sum(tf.cast(batch["dropped_positives"], tf.float32))
        counts["bad"] = tf.reduce_sum(tf.cast(batch["bad_records"], tf.float32))
        local = tf.concat([tf.stack(list(counts.values())), requests], axis=0)
        total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, local)
        return dict(zip(counts, tf.unstack(total[:-2]), strict=True)) | {"requests": total[-2:]}

    def _accumulate(self, batch: Any, counts: Any) -> tuple[Any, Any]:
        def micro_step(batch: Any, index: tf.Tensor, counts: Any) -> None:
            gradients, losses = self._micro_step(batch, index, counts)
            for total, gradient in zip(self._gradient_sums, gradients, strict=True):
                total.assign_add(gradient)
            self._loss_sums.assign_add(losses)

        def clear() -> None:
            for total in (*self._gradient_sums, self._loss_sums):
                # tf.zeros would become constants, which hold as much memory as the gradients once more.
                total.assign(tf.raw_ops.Empty(shape=total.shape, dtype=total.dtype, init=True))

        self._strategy.run(clear)
        for index in tf.range(self._accumulation):
            # One after the other, so that only one micro-batch's activations exist at a time.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            self._strategy.run(micro_step, args=(batch, index, counts))
        return self._strategy.run(lambda: ([s.read_value() for s in self._gradient_sums], self._loss_sums.read_value()))

    def _micro_step(self, batch: Any, index: tf.Tensor, counts: Any) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Loss parts [3] and gradients of one micro-batch, in replica context."""
        batch = {key: self._slice(value, index) for key, value in batch.items()}
        scale = self._loss_scale.read_value() if self._scaled else tf.constant(1.0)
        gradients, losses = self._micro_gradients(batch, counts["positives"], counts["positive_cells"], scale)
        finite = tf.reduce_all(tf.math.is_finite(losses))
        self._suspects.assign(tf.where(finite, self._suspects.read_value(), batch["image_id"]))
        return gradients, losses

    def _slice(self, value: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        if self._accumulation == 1:
            return value
        return tf.reshape(value, [self._accumulation, self._micro_batch, *value.shape[1:]])[index]

    def _loss_and_gradients(
        self, batch: Any, positives: tf.Tensor, cells: tf.Tensor, scale: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = self._model(batch["image"], training=True)
            losses = self._loss(outputs, batch, positives, cells)
            objective = losses[0] * scale
        gradients = tape.gradient(objective, self._variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.cast(gradient, tf.float32) / scale for gradient in gradients], losses

    def _loss_of_outputs(self, outputs: Any, batch: Any, positives: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
        normalizers = {"positives": positives, "positive_cells": cells}
        losses = solo_loss(outputs, batch, normalizers, self._config.loss, self._config.model)
        return tf.stack([losses[part] for part in _LOSS_PARTS])

    def _sum_over_replicas(self, gradients: list[Any], losses: Any) -> tuple[list[Any], tf.Tensor]:
        """Gradients summed onto every device that holds the variable, and the summed loss parts."""
        places = [*self._variables, self._loss_place]
        pairs = list(zip([*gradients, losses], places, strict=True))
        *gradients, losses = self._strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
        return gradients, self._first(losses)

    def _guarded_apply(self, gradients: Any, losses: tf.Tensor, norm: tf.Tensor, counts: Any) -> None:
        """Applies the update if loss and gradient are finite; otherwise only counts the step."""
        finite = tf.math.is_finite(norm) & tf.reduce_all(tf.math.is_finite(losses))
        if finite:
            self._optimizer.apply(gradients, norm)
        else:
            self._optimizer.skip()
        counted = tf.cast(finite, tf.float32)
        values = {"steps": counted, "grad_norm": norm, "nonfinite_steps": 1.0 - counted}
        values |= {f"loss/{part}": losses[i] for i, part in enumerate(_LOSS_PARTS)}
        values |= {"targets/dropped_positives": counts["dropped"], "data/bad_records": counts["bad"]}
        for name, variable in self._sums.items():
            variable.assign_add(tf.where(finite, values[name], 0.0) if name in _MEANS else values[name])
        self._nonfinite_run.assign(tf.where(finite, tf.zeros([], tf.int64), self._first(self._nonfinite_run) + 1))
        if self._scaled:
            self._adapt_loss_scale(finite)

    def _adapt_loss_scale(self, finite: tf.Tensor) -> None:
        """Halves the float16 loss scale on overflow and doubles it after a long time without."""
        scale, good = self._first(self._loss_scale), self._first(self._good_steps) + 1
        grow = finite & (good >= _LOSS_SCALE_GROWTH_STEPS)
        adapted = tf.where(finite, tf.where(grow, scale * 2.0, scale), tf.maximum(scale / 2.0, 1.0))
        self._loss_scale.assign(adapted)
        self._good_steps.assign(tf.where(finite & ~grow, good, tf.zeros([], tf.int64)))

    def _first(self, value: Any) -> Any:
        """This worker's first copy of a value that is the same on all replicas."""
        return tf.nest.map_structure(lambda v: self._strategy.experimental_local_results(v)[0], value)

    def read_metrics(self) -> dict[str, float]:
        """Means of a step and totals since the last call, which sets them back to zero. Waits for the device."""
        sums = {name: float(self._first(variable)) for name, variable in self._sums.items()}
        for variable in self._sums.values():
            variable.assign(0.0)
        steps = max(sums["steps"], 1.0)
        metrics = {name: sums[name] / steps for name in _MEANS} | {name: sums[name] for name in _TOTALS}
        if self._scaled:
            metrics["loss_scale"] = float(self._first(self._loss_scale))
        return metrics | {"lr": float(self._optimizer.learning_rate(self._first(self._optimizer.step) - 1))}

    def wait(self) -> None:
        """Returns when the device has finished all steps."""
        int(self._first(self._nonfinite_run))

    def read_wait_seconds(self) -> float:
        """Seconds spent waiting for input since the last call."""
        seconds = float(self._first(self._wait_seconds))
        self._wait_seconds.assign(0.0)
        return seconds

    def suspect_images(self) -> list[int]:
        """Ids of the images in each replica's last micro-batch whose loss was not finite; of this worker's replicas."""
        replicas = self._strategy.experimental_local_results(self._suspects)
        return sorted({int(image) for replica in replicas for image in replica.numpy() if image != NO_IMAGE})


def _after(batch: dict[str, tf.Tensor], event: tf.Tensor) -> dict[str, tf.Tensor]:
    """The batch of a replica, for operations that must not begin before `event` is computed."""
    with tf.control_dependencies([event]):
        return {key: tf.identity(value) for key, value in batch.items()}
