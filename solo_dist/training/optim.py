"""Optimizers with the official semantics, the learning-rate schedule, clipping and the moving average of weights.

Written for `tf.distribute`: `Optimizer.apply` runs in cross-replica context on gradients that are already summed over
replicas, with one fused TensorFlow kernel a variable. Differences from Keras' optimizers that matter for SOLOv2:
SGD applies the learning rate outside the momentum, as PyTorch does (quirk 18), its weight decay is part of the
gradient, and clipping acts on the gradient of the global batch.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from solo_dist.config import OptimizerConfig
from solo_dist.run.checkpoint import AVERAGE

_ADAM_BETA1, _ADAM_BETA2, _ADAM_EPSILON = 0.9, 0.999, 1e-8


def peak_learning_rate(config: OptimizerConfig, global_batch: int) -> float:
    """The learning rate after the warm-up, scaled linearly with the global batch if the config asks for it."""
    if config.reference_batch:
        return config.learning_rate * global_batch / config.reference_batch
    return config.learning_rate


def learning_rate_at(
    step: tf.Tensor, config: OptimizerConfig, peak: float, total_steps: tf.Tensor | tf.Variable | int
) -> tf.Tensor:
    """Learning rate of the update that follows `step` finished ones: linear warm-up, then step, cosine or constant.

    Args:
      step: int64 scalar.
      config: the optimizer section of the config.
      peak: learning rate after the warm-up.
      total_steps: length of the schedule, an integer scalar.
    Returns:
      float32 scalar.
    """
    now = tf.cast(step, tf.float32)
    if config.schedule == "step":
        passed = tf.reduce_sum(tf.cast(now >= tf.constant(config.milestones or (math.inf,), tf.float32), tf.float32))
        rate = peak * config.decay_factor**passed
    elif config.schedule == "cosine":
        span = tf.maximum(total_steps - config.warmup_steps, 1)
        done = tf.clip_by_value((now - config.warmup_steps) / tf.cast(span, tf.float32), 0.0, 1.0)
        rate = peak * 0.5 * (1.0 + tf.cos(math.pi * done))
    else:
        rate = tf.constant(peak, tf.float32)
    if config.warmup_steps:
        done = tf.minimum(now / config.warmup_steps, 1.0)
        rate *= config.warmup_factor + (1.0 - config.warmup_factor) * done
    return rate


class Optimizer:
    """SGD with momentum or AdamW over named variables, with its slots as plain variables.

    Args:
      strategy: under whose scope the variables were made.
      variables: trainable variables by name.
      config: the optimizer section of the config.
      peak: learning rate after warm-up.
      total_steps: length of the schedule; 0 if `set_total_steps` gives it later.
      rate_scales: factor on the learning rate by variable name; 1 for variables that are not in it.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        variables: Mapping[str, tf.Variable],
        config: OptimizerConfig,
        peak: float,
        total_steps: int,
        rate_scales: Mapping[str, float] | None = None,
    ):
        self._strategy, self.config, self.peak = strategy, config, peak
        self._variables = dict(variables)
        self._rate_scales = dict(rate_scales or {})
        kinds = ("momentum",) if config.name == "sgd" else ("first_moment", "second_moment")
        with strategy.scope():
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
            self._total_steps = tf.Variable(total_steps, dtype=tf.int64, trainable=False, name="total_steps")
            self._slots = {kind: self._zeros_like_variables(kind) for kind in kinds}
            self.averages = self._copies_of_variables() if config.ema_decay else {}

    def _zeros_like_variables(self, kind: str) -> dict[str, tf.Variable]:
        return {
            name: tf.Variable(tf.zeros(variable.shape, tf.float32), trainable=False, name=kind)
            for name, variable in self._variables.items()
        }

    def _copies_of_variables(self) -> dict[str, tf.Variable]:
        return {
            name: tf.Variable(variable.read_value(), trainable=False, name="average")
            for name, variable in self._variables.items()
        }

    def set_total_steps(self, total_steps: int) -> None:
        """Sets the length of the schedule. It is no part of the state, as a run can go on with another one."""
        self._total_steps.assign(total_steps)

    def restart_averages(self) -> None:
        """Sets the moving averages to the current weights."""
        for name, average in self.averages.items():
            average.assign(self._variables[name])

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """A context in which the weights are the moving averages, if the config keeps averages."""
        kept = {name: self._variables[name].numpy() for name in self.averages}
        for name, average in self.averages.items():
            self._variables[name].assign(average.read_value())
        try:
            yield
        finally:
            for name, value in kept.items():
                self._variables[name].assign(value)

    def state(self) -> dict[str, tf.Variable]:
        """Every variable of the optimizer by a name that stays the same from run to run."""
        named = {"optimizer/step": self.step}
        for kind, slots in self._slots.items():
            named |= {f"optimizer/{kind}/{name}": slot for name, slot in slots.items()}
        return named | {f"{AVERAGE}{name}": average for name, average in self.averages.items()}

    def learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        """Learning rate of the update that follows `step` finished ones, float32 scalar."""
        return learning_rate_at(step, self.config, self.peak, self._total_steps)

    def skip(self) -> None:
        """Counts a step without an update, so that the schedule advances."""
        self.step.assign_add(1)

    @tf.autograph.experimental.do_not_convert
    def apply(self, gradients: Sequence[tf.Tensor], norm: tf.Tensor) -> None:
        """Makes one update. Call it in cross-replica context.

        Args:
          gradients: one a variable, in their order, the gradient of the global batch on every replica.
          norm: their global norm, for clipping.
        """
        clip = self.config.clip_norm
        factor = tf.minimum(1.0, clip / tf.maximum(norm, 1e-12)) if clip else tf.constant(1.0)
        rate, count = self.learning_rate(self.step), tf.cast(self.step + 1, tf.float32)
        rule = self._sgd if self.config.name == "sgd" else self._adamw
        # Each device updates its own copy from the same numbers, so the copies stay equal.
        copies = self._strategy.experimental_local_results
        for (name, variable), gradient in zip(self._variables.items(), gradients, strict=True):
            scaled_rate, decay = rate * self._rate_scales.get(name, 1.0), self._decay_of(variable)
            slots = [slots[name] for slots in self._slots.values()]
            averages = [self.averages[name]] if self.averages else []
            for local, local_gradient, *rest in zip(*map(copies, (variable, gradient, *slots, *averages)), strict=True):
                with tf.device(local.device):
                    rule(local, local_gradient * factor, scaled_rate, count, decay, *rest[: len(slots)])
                    if averages:
                        self._average(rest[-1], local, count)
        self.step.assign_add(1)

    def _average(self, average: Any, variable: Any, count: tf.Tensor) -> None:
        # The average forgets faster at first, so that the random initial weights do not stay in it.
        keep = tf.minimum(self.config.ema_decay, count / (count + 10.0))
        average.assign_sub((1.0 - keep) * (average - variable))

    def _decay_of(self, variable: tf.Variable) -> float:
        spared = not self.config.decay_norms_and_biases and len(variable.shape) <= 1
        return 0.0 if spared else self.config.weight_decay

    def _sgd(self, variable: Any, gradient: Any, rate: Any, count: Any, decay: float, momentum: Any) -> None:
        """v <- m v + (g + decay w); w <- w - rate v, as torch.optim.SGD."""
        if decay:
            gradient += decay * variable
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle, accum=momentum.handle, lr=rate, grad=gradient, momentum=self.config.momentum
        )

    def _adamw(
        self, variable: Any, gradient: Any, rate: Any, count: Any, decay: float, first: Any, second: Any
    ) -> None:
        """Adam with decoupled weight decay, w <- w (1 - rate decay) before the update (Loshchilov and Hutter, 2019)."""
        if decay:
            variable.assign_sub(rate * decay * variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=first.handle,
            v=second.handle,
            beta1_power=tf.pow(_ADAM_BETA1, count),
            beta2_power=tf.pow(_ADAM_BETA2, count),
            lr=rate,
            beta1=_ADAM_BETA1,
            beta2=_ADAM_BETA2,
            epsilon=_ADAM_EPSILON,
            grad=gradient,
        )
