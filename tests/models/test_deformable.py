"""Deformable convolution against the official operators, and against a slow version in NumPy."""

import json

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.models.deformable import deformable_conv2d
from solo_dist.models.grouped import grouped_conv2d
from tests.golden.compare import relative


def nhwc(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def with_gradients(arguments, upstream, strides, groups):
    """The convolution, and the gradient of its product with `upstream` by every argument."""
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        x, offset, mask, weight = (arguments.get(name) for name in ("x", "offset", "mask", "weight"))
        out = deformable_conv2d(x, offset, mask, weight, strides, groups)
    return out, tape.gradient(out, arguments, upstream)


CASES = ("v1s1", "v1s2", "v2s1", "v2s2", "groups", "k1", "zero", "zero2")
COMPILED = ("groups",)


@pytest.mark.parametrize(
    ("case", "compiled"), [*[(case, False) for case in CASES], *[(case, True) for case in COMPILED]]
)
def test_values_and_gradients_are_the_official_ones(golden, case, compiled):
    """The cases named zero have all offsets 0, as at the start of training: there quirk 28 counts."""
    vector = {key.removeprefix(f"{case}_"): v for key, v in golden("dcn_ops").items() if key.startswith(f"{case}_")}
    config = json.loads(str(vector["config"]))
    arguments = {name: tf.constant(nhwc(vector[name])) for name in ("x", "offset", "mask") if name in vector}
    arguments["weight"] = tf.constant(vector["weight"].transpose(2, 3, 1, 0))
    upstream = tf.constant(nhwc(vector["grad_out"]))

    def run():
        return with_gradients(arguments, upstream, config["stride"], config["groups"])

    out, gradients = tf.function(run, jit_compile=True)() if compiled else run()
    assert relative(out, nhwc(vector["out"])) <= 1e-5
    assert relative(gradients.pop("weight"), vector["grad_weight"].transpose(2, 3, 1, 0)) <= 1e-5
    for name, gradient in gradients.items():
        assert relative(gradient, nhwc(vector[f"grad_{name}"])) <= 1e-5, name


def slow_deformable_conv2d(x, offsets, modulation, kernel, strides, groups):
    """Pixel by pixel, tap by tap, from the definition in the papers."""
    batch, height, width, channels = x.shape
    side, _, depth, filters = kernel.shape

    def pixel(image, row, column):
        return x[image, row, column] if 0 <= row < height and 0 <= column < width else np.zeros(channels)

    out = np.zeros([batch, -(-height // strides), -(-width // strides), filters])
    for image, i, j in np.ndindex(out.shape[:3]):
        for tap in range(side * side):
            dy, dx = offsets[image, i, j, 2 * tap : 2 * tap + 2]
            y, x_ = i * strides - side // 2 + tap // side + dy, j * strides - side // 2 + tap % side + dx
            top, left = int(np.floor(y)), int(np.floor(x_))
            below, right = y - top, x_ - left
            value = (1 - below) * (1 - right) * pixel(image, top, left) + below * right * pixel(
                image, top + 1, left + 1
            )
            value = value + (1 - below) * right * pixel(image, top, left + 1)
            value = value + below * (1 - right) * pixel(image, top + 1, left)
            value = value * (1 if modulation is None else modulation[image, i, j, tap])
            for f in range(filters):
                group = f // (filters // groups)
                own = value[group * depth : (group + 1) * depth]
                out[image, i, j, f] += own @ kernel[tap // side, tap % side, :, f]
    return out


def random_arguments(side, strides, groups, modulated, size=(6, 5), channels=4, filters=6):
    generator = np.random.default_rng(side + strides)
    (height, width), taps = size, side * side
    out_size = (2, -(-height // strides), -(-width // strides))
    return {
        "x": generator.normal(size=(2, height, width, channels)),
        "offset": generator.normal(0, 3, (*out_size, 2 * taps)),
        "weight": generator.normal(size=(side, side, channels // groups, filters)),
        **({"mask": generator.uniform(size=(*out_size, taps))} if modulated else {}),
    }


@pytest.mark.parametrize(
    ("side", "strides", "groups", "modulated"), [(3, 1, 1, True), (3, 2, 2, False), (5, 2, 1, True), (1, 2, 2, True)]
)
def test_values_are_those_of_the_slow_version(side, strides, groups, modulated):
    arguments = random_arguments(side, strides, groups, modulated)
    ordered = [arguments.get(name) for name in ("x", "offset", "mask", "weight")]
    expected = slow_deformable_conv2d(*ordered, strides, groups)
    tensors = [None if value is None else tf.constant(value, tf.float32) for value in ordered]
    assert relative(deformable_conv2d(*tensors, strides, groups), expected) <= 1e-5


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.02), ("float16", 0.003)])
def test_lower_precision_agrees_with_float32(dtype, tolerance, compiled):
    """Offsets stay in float32, as the layer computes them; the rest is in the type of the input."""
    wide = {name: tf.constant(value, tf.float32) for name, value in random_arguments(3, 1, 2, True).items()}
    types = {name: "float32" if name == "offset" else dtype for name in wide}
    narrow = {name: tf.cast(value, types[name]) for name, value in wide.items()}
    upstream = tf.random.stateless_normal([2, 6, 5, 6], (0, 1))
    run = tf.function(with_gradients, jit_compile=True) if compiled else with_gradients
    out, gradients = run(narrow, tf.cast(upstream, dtype), 1, 2)
    expected, expected_gradients = with_gradients(wide, upstream, 1, 2)
    assert out.dtype == dtype and {name: g.dtype.name for name, g in gradients.items()} == types
    assert relative(out, expected) <= tolerance
    for name, gradient in gradients.items():
        assert relative(gradient, expected_gradients[name]) <= tolerance, name


def test_only_arguments_are_kept_for_the_backward_pass():
    """Nothing outside the loops over the taps is larger than an argument: not what nine taps have read."""
    arguments = {
        name: tf.TensorSpec(value.shape, tf.float32)
        for name, value in random_arguments(3, 1, 1, True, (16, 20), 64, 64).items()
    }
    upstream = tf.TensorSpec([2, 16, 20, 64], tf.float32)
    graph = tf.function(with_gradients).get_concrete_function(arguments, upstream, 1, 1).graph
    shapes = [output.shape for operation in graph.get_operations() for output in operation.outputs]
    largest = max(shape.num_elements() for shape in shapes if shape.is_fully_defined())
    assert largest == 2 * 16 * 20 * 64


def test_an_offset_that_is_no_number_is_not_hidden():
    arguments = {name: tf.constant(value, tf.float32) for name, value in random_arguments(3, 1, 1, True).items()}
    for bad in (np.nan, np.inf):
        offsets = arguments["offset"].numpy()
        offsets[1, 2, 3, 4] = bad
        out = deformable_conv2d(arguments["x"], tf.constant(offsets), arguments["mask"], arguments["weight"]).numpy()
        assert np.isnan(out[1, 2, 3]).all() and np.isnan(out).sum() == out.shape[-1]


@pytest.mark.parametrize("strides", [1, 2])
def test_a_grouped_convolution_is_that_of_tensorflow(strides):
    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(size=(2, 7, 8, 6)), tf.float32)
    kernel = tf.constant(generator.normal(size=(3, 3, 2, 9)), tf.float32)
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    expected = tf.nn.conv2d(padded, kernel, strides, "VALID").numpy()
    assert relative(grouped_conv2d(x, kernel, strides), expected) <= 1e-5
