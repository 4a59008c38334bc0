"""Activations computed again in the backward pass instead of being kept, to trade time for memory.

`tf.recompute_grad` does not know Keras' variables under a distribution strategy and would run the updates of moving
statistics twice; here the variables are explicit arguments.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

Tensors: TypeAlias = tf.Tensor | tuple[tf.Tensor, ...]


class Recomputation:
    """Calls functions such that only their inputs are kept for the backward pass. One object for each forward pass.

    The second computations run one after the other, in the reverse order of the first. Otherwise parallel branches,
    whose gradients arrive at the same time, would hold all their activations at once.
    """

    def __init__(self) -> None:
        self._previous: list[tf.Tensor] = []

    def __call__(
        self, function: Callable[..., Tensors], layers: Sequence[keras.layers.Layer], *inputs: tf.Tensor
    ) -> Tensors:
        """Calls a function of floating tensors.

        Args:
          function: from the inputs to a tensor or a tuple of tensors; runs twice.
          layers: built layers with every variable that the function reads.
          *inputs: floating tensors.

        Returns:
          What the function returns. Moving statistics are updated once.
        """
        trainable = _unique(variable for layer in layers for variable in layer.trainable_variables)
        others = _unique(variable for layer in layers for variable in layer.non_trainable_variables)

        def run(*arguments: tf.Tensor) -> tuple[Tensors, list[tuple[Any, tf.Tensor]]]:
            """The outputs, and the new values of variables that the function would have changed."""
            values = list(zip(trainable, arguments[len(inputs) :], strict=True))
            # Outside such a scope, the gradient would not see that the function reads and changes variables.
            with keras.StatelessScope(state_mapping=values) as scope:
                outputs = function(*arguments[: len(inputs)])
            new = [(variable, scope.get_current_value(variable)) for variable in others]
            return outputs, [(variable, value) for variable, value in new if value is not None]

        @tf.custom_gradient
        def with_gradient(*arguments: tf.Tensor) -> tuple[Tensors, Callable[..., list[tf.Tensor]]]:
            outputs, changes = run(*arguments)
            for variable, value in changes:
                variable.assign(value)

            def gradient(*output_gradients: tf.Tensor) -> list[tf.Tensor]:
                again = _after(arguments, output_gradients, self._previous)
                # Of the variables only: a sum would be a copy, and the inputs are large.
                again[len(inputs) :] = plus_zero(again[len(inputs) :], [*output_gradients, *self._previous[:1]])
                with tf.GradientTape() as tape:
                    tape.watch(again)
                    outputs, _ = run(*again)
                wanted = output_gradients if isinstance(outputs, tuple) else output_gradients[0]
                gradients = tape.gradient(outputs, again, wanted, unconnected_gradients=tf.UnconnectedGradients.ZERO)
                self._previous = gradients
                return gradients

            return outputs, gradient

        return with_gradient(*inputs, *[tf.convert_to_tensor(variable.value) for variable in trainable])


def _after(
    tensors: Sequence[tf.Tensor], incoming: Sequence[tf.Tensor], previous: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """The tensors, unchanged, but not available before the incoming gradients and the previous ones are."""
    with tf.control_dependencies([*incoming, *previous]):
        return [tf.identity(tensor) for tensor in tensors]


def plus_zero(tensors: Sequence[tf.Tensor], signals: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The tensors, unchanged, but computed from the signals.

    XLA ignores control dependencies and would merge the second computation with the first, whose operands are the
    same. It does not know that the minimum of an absolute value and zero is zero.
    """
    corners = [tf.cast(tf.reshape(signal, [-1])[0], tf.float32) for signal in signals]
    zero = tf.minimum(tf.abs(tf.add_n(corners)), 0)
    return [tensor + tf.cast(zero, tensor.dtype) for tensor in tensors]


def _unique(variables: Any) -> list[Any]:
    return list({id(variable): variable for variable in variables}.values())
