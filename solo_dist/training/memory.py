"""How many images fit into a device at a time, for train.micro_batch=auto.

An estimate from the network itself: the backward pass needs part of what the forward pass of one image computes. This
part was measured with `solo-dist benchmark --what=memory`. The estimate errs towards too few images.
"""

import os
import subprocess
from typing import Any

import tensorflow as tf

_PEAK_PER_FORWARD_BYTE = 0.4
"""Peak step memory divided by total forward activation bytes; most of them are freed immediately.
Measured on a CPU in float32 for the official R50 model at 512x512: 0.31 for the first image, 0.22 for the second."""
_MOST_BYTES_PER_PIXEL = 20_000
"""No network of the recipes needs more for a pixel of the canvas; if that fits, the network need not be traced."""
_SHARE_OF_DEVICE = 0.8
"""The rest is for the input pipeline, TensorFlow itself and other processes."""
_BYTES_PER_WEIGHT = 16
"""Weight, gradient, its sum over micro-batches, momentum, in float32."""


def images_that_fit(model: Any, canvas: tuple[int, int], wanted: int, local_replicas: int) -> int:
    """Images of the canvas whose training step fits into one device beside the weights; 1 to `wanted`.

    Args:
      model: the built network.
      canvas: H, W.
      wanted: more are not needed.
      local_replicas: replicas on this machine, which share the memory of a CPU.
    """
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    total = _gpu_bytes() if on_gpu else _host_bytes() // local_replicas
    return images_that_fit_into(total, model, canvas, wanted)


def images_that_fit_into(total: float, model: Any, canvas: tuple[int, int], wanted: int) -> int:
    """As `images_that_fit`, for a device of `total` bytes."""
    weights = sum(variable.value.shape.num_elements() for variable in model.variables) * _BYTES_PER_WEIGHT
    free = total * _SHARE_OF_DEVICE - weights
    if wanted * canvas[0] * canvas[1] * _MOST_BYTES_PER_PIXEL <= free:
        return wanted
    return min(wanted, max(1, int(free / (_forward_bytes(model, canvas) * _PEAK_PER_FORWARD_BYTE))))


def _forward_bytes(model: Any, canvas: tuple[int, int]) -> int:
    """Bytes of everything that the forward pass of one image computes."""
    forward = tf.function(lambda images: model(images, training=True), autograph=False)
    graph = forward.get_concrete_function(tf.TensorSpec([1, *canvas, 3], tf.uint8)).graph
    tensors = [tensor for operation in graph.get_operations() for tensor in operation.outputs]
    return sum(
        tensor.shape.num_elements() * tensor.dtype.size
        for tensor in tensors
        if tensor.shape.is_fully_defined() and tensor.dtype.is_floating
    )


def _host_bytes() -> int:
    """All memory, not what is free now: the next start of the run must get the same answer."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gpu_bytes() -> int:
    """Memory of the smallest GPU; TensorFlow has no function for it."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
        return min(int(line) for line in listed.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return 4 * 2**30  # the smallest GPU that this project supports
