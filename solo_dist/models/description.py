"""The size of a model: parameters, and multiply-adds for one image, of each part."""

import math
from typing import Any, NamedTuple

import tensorflow as tf

from solo_dist.models.deformable import LOOP


class Part(NamedTuple):
    """Size of one part of the network."""

    name: str
    parameters: int
    """Learned numbers, frozen ones included, moving statistics not: as the official code counts."""
    trainable: int
    multiply_adds: int
    """Multiply-adds of convolutions and matrix products in the forward pass of one image, resizing included."""


def describe(model: Any, canvas: tuple[int, int]) -> list[Part]:
    """The parts of a network at a canvas H, W in the order of the forward pass; the dynamic convolution is not counted.

    Dynamic convolution and mask loss cost E multiply-adds for each positive and pixel of the mask features.
    """
    images = tf.TensorSpec([1, *canvas, 3], tf.uint8)
    features, backbone = _trace(model.backbone, images)
    pyramid, fpn = _trace(model.fpn, features)
    parts = [_part("backbone", model.backbone, backbone), _part("fpn", model.fpn, fpn)]
    return parts + [_part(name, head, _trace(head, pyramid)[1]) for name, head in model.heads.items()]


def _part(name: str, layer: Any, multiply_adds: int) -> Part:
    learned = [variable for variable in layer.variables if "moving_" not in variable.path]
    return Part(name, _count(learned), _count(layer.trainable_variables), multiply_adds)


def _count(variables: list[Any]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _trace(layer: Any, inputs: Any) -> tuple[Any, int]:
    """The signature of what a layer returns, and its multiply-adds."""
    function = tf.function(lambda x: layer(x, training=False), autograph=False)
    concrete = function.get_concrete_function(inputs)
    outputs = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), concrete.structured_outputs)
    return outputs, sum(_multiply_adds(operation) for operation in concrete.graph.get_operations())


def _multiply_adds(operation: tf.Operation) -> int:
    if operation.type == "Conv2D":
        return _elements(operation.outputs[0]) * math.prod(operation.inputs[1].shape[:3])
    if operation.type == "DepthwiseConv2dNative":
        return _elements(operation.outputs[0]) * math.prod(operation.inputs[1].shape[:2])
    if operation.type in ("MatMul", "BatchMatMulV2"):
        transposed = operation.get_attr("adj_x" if operation.type == "BatchMatMulV2" else "transpose_a")
        return _elements(operation.outputs[0]) * operation.inputs[0].shape[-2 if transposed else -1]
    if operation.type in ("While", "StatelessWhile") and operation.name.split("/")[-1].startswith(LOOP):
        # The products are in the body: one a tap, of weights [taps, groups, C / groups, F / groups].
        (weights,) = (tensor for tensor in operation.inputs if tensor.shape.rank == 4)
        pixels = max(_elements(output) for output in operation.outputs if output.shape.rank == 2) // (
            weights.shape[1] * weights.shape[3]
        )
        return pixels * math.prod(weights.shape)
    return 0


def _elements(tensor: tf.Tensor) -> int:
    """Numbers in a tensor; a size that is not static is that of the batch, 1."""
    return math.prod(size or 1 for size in tensor.shape)
