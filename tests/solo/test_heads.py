"""The heads against the official outputs, and the options that the official code does not have."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import PYRAMID_LEVELS, GridConfig, ModelConfig
from solo_dist.solo.branches import align_levels
from solo_dist.solo.heads import GridHead, MaskHead
from solo_dist.weights.names import translate
from solo_dist.weights.torch_reader import read_torch
from tests.golden.compare import assert_close


def nhwc(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def head_small(golden):
    return golden("head_small")


@pytest.fixture(scope="module")
def heads(head_small, write_pth):
    """Grid head and mask head with the official weights of the golden vector."""
    sizes = json.loads(str(head_small["config"]))
    config = ModelConfig(
        num_categories=sizes["ncls"] - 1,
        fpn_channels=sizes["C"],
        head_channels=sizes["feat"],
        head_convs=sizes["convs"],
        kernel_channels=sizes["ins"],
        mask_channels=sizes["mf_out"],
    )
    parts = GridHead(config, name="head"), MaskHead(config, name="mask_head")
    shapes = {name: (None, *feature.shape[1:]) for name, feature in pyramid_of(head_small).items()}
    for part in parts:
        part.build(shapes)
    variables = {variable.path: variable for part in parts for variable in part.variables}
    file = write_pth({name[2:]: value for name, value in head_small.items() if name.startswith("w:")}, "legacy")
    weights = translate(read_torch(file, "head_small"))
    for name, value in weights.arrays.items():
        variables.pop(name).assign(value)
    assert not variables
    return parts


def pyramid_of(head_small) -> dict[str, tf.Tensor]:
    return {name: tf.constant(nhwc(head_small[f"feat_{level}"])) for level, name in enumerate(PYRAMID_LEVELS)}


@pytest.mark.parametrize("compiled", [False, True])
def test_grid_head_gives_the_official_outputs(head_small, heads, compiled):
    outputs = tf.function(heads[0], jit_compile=compiled)(pyramid_of(head_small))
    logits, kernels = outputs["category_logits"], outputs["kernels"]
    start = 0
    for level, size in enumerate((40, 36, 24, 16, 12)):
        cells = slice(start, start + size * size)
        for actual, key in ((logits, "cate_pred"), (kernels, "kernel_pred")):
            expected = nhwc(head_small[f"{key}_{level}"])
            assert_close(actual[:, cells].numpy().reshape(expected.shape), expected)
        start += size * size
    assert start == logits.shape[1] == kernels.shape[1]


@pytest.mark.parametrize("compiled", [False, True])
def test_mask_head_gives_the_official_output(head_small, heads, compiled):
    actual = tf.function(heads[1], jit_compile=compiled)(pyramid_of(head_small))
    assert_close(actual["mask_features"].numpy(), nhwc(head_small["mask_feat"]))


def flat_levels(vector, key) -> tf.Tensor:
    """Official maps of five levels, NCHW, as [B, N, channels]."""
    levels = [nhwc(vector[f"{key}_{level}"]) for level in range(5)]
    return tf.constant(np.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in levels], axis=1))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_of_features_and_parameters_are_the_official_ones(golden, head_small, heads, compiled):
    """From the official gradients of the predictions back through both heads."""
    vector = golden("loss_head_two")
    output_gradients = {
        "category_logits": flat_levels(vector, "grad_cate_pred"),
        "kernels": flat_levels(vector, "grad_kernel_pred"),
        "mask_features": tf.constant(nhwc(vector["grad_mask_feat"])),
    }
    variables = {variable.path: variable.value for part in heads for variable in part.variables}

    @tf.function(jit_compile=compiled)
    def backward(pyramid):
        with tf.GradientTape() as tape:
            tape.watch(pyramid)
            outputs = heads[0](pyramid, training=True) | heads[1](pyramid, training=True)
        return tape.gradient(outputs, [pyramid, variables], output_gradients)

    features, parameters = backward(pyramid_of(head_small))
    expected = translate({name[2:]: value for name, value in vector.items() if name.startswith("g:")}).arrays
    expected |= {f"feature {level}": nhwc(vector[f"grad_feat_{level}"]) for level in range(5)}
    actual = parameters | {f"feature {level}": feature for level, feature in enumerate(features.values())}
    assert set(actual) == set(expected)
    for name, gradient in actual.items():
        assert np.linalg.norm(gradient - expected[name]) <= 1e-4 * np.linalg.norm(expected[name]), name


def test_levels_are_aligned_as_in_the_official_code(head_small):
    aligned = align_levels(pyramid_of(head_small), PYRAMID_LEVELS)
    assert_close(aligned[0].numpy(), nhwc(head_small["split_feat_0"]))
    assert_close(aligned[4].numpy(), nhwc(head_small["split_feat_4"]))


SMALL = ModelConfig(
    num_categories=3,
    grid=GridConfig(levels=("p3",), sizes=(6,), scale_ranges=((1, 500),)),
    fpn_channels=32,
    head_channels=32,
    head_convs=1,
    kernel_channels=8,
    mask_channels=32,
    norm_groups=8,
)
PYRAMID_SHAPES = {
    "p2": (None, 16, 24, 32),
    "p3": (None, 8, 12, 32),
    "p4": (None, 4, 6, 32),
    "p5": (None, 2, 3, 32),
    "p6": (None, 1, 2, 32),
}
BRANCHES = ("category", "kernel")
THREE = GridConfig(levels=("p2", "p4", "p6"), sizes=(7, 5, 3), scale_ranges=((1, 50), (20, 90), (60, 500)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grid": THREE, "head_convs": 7},
        {"grid": THREE, "mask_features": "separate"},
        {"grid": THREE, "coordinates": False},
        {"grid": THREE, "shared_tower": True},
        {"shared_tower": True, "coordinates": False, "head_init": "he"},
    ],
)
def test_options_give_the_promised_shapes(changes):
    config = dataclasses.replace(SMALL, **changes)
    head, mask_head = GridHead(config, name="head"), MaskHead(config, name="mask_head")
    pyramid = {level: tf.random.stateless_normal([2, *shape[1:]], (0, 1)) for level, shape in PYRAMID_SHAPES.items()}
    head.build(PYRAMID_SHAPES)
    mask_head.build(PYRAMID_SHAPES)
    shapes = {name: value.shape for name, value in (head(pyramid) | mask_head(pyramid)).items()}
    assert shapes.pop("category_logits") == (2, config.grid.num_cells, 3)
    assert shapes.pop("kernels") == (2, config.grid.num_cells, 8)
    separate = [f"mask_features_{level}" for level in config.grid.levels]
    assert list(shapes) == (separate if config.mask_features == "separate" else ["mask_features"])
    assert set(shapes.values()) == {(2, 16, 24, 8)}
    names = [variable.path for variable in head.variables + mask_head.variables]
    assert len(set(names)) == len(names)
    towers = {
        branch: sum(f"{branch}_conv" in name and name.endswith("kernel") for name in names) for branch in BRANCHES
    }
    assert towers == {"category": 0 if config.shared_tower else config.head_convs, "kernel": config.head_convs}


def test_he_initialisation_keeps_the_variance_and_gives_no_two_convolutions_the_same_values():
    config = dataclasses.replace(SMALL, head_init="he")
    head, mask_head = GridHead(config, name="head"), MaskHead(config, name="mask_head")
    head.build(PYRAMID_SHAPES)
    mask_head.build(PYRAMID_SHAPES)
    hidden = [v for v in head.variables + mask_head.variables if "conv" in v.path and v.path.endswith("/kernel")]
    for kernel in hidden:
        assert np.std(kernel) == pytest.approx(np.sqrt(2 / np.prod(kernel.shape[:3])), rel=0.15), kernel.path
    assert len({kernel.numpy().tobytes() for kernel in hidden}) == len(hidden) > 6
    outputs = [v for v in head.variables if v.path in ("head/category/kernel", "head/kernel/kernel")]
    assert all(np.std(kernel) == pytest.approx(0.01, rel=0.15) for kernel in outputs) and len(outputs) == 2


def test_prior_probability_of_a_category_is_one_percent():
    head = GridHead(SMALL, name="head")
    head.build(PYRAMID_SHAPES)
    logits = head({level: tf.zeros([1, *shape[1:]]) for level, shape in PYRAMID_SHAPES.items()})["category_logits"]
    np.testing.assert_allclose(tf.sigmoid(logits), 0.01, atol=1e-3)


def test_only_the_kernel_branch_sees_coordinates():
    """Identical features everywhere: categories differ only near the border, kernels everywhere."""
    head = GridHead(dataclasses.replace(SMALL, grid=dataclasses.replace(SMALL.grid, sizes=(12,))), name="head")
    head.build(PYRAMID_SHAPES)
    outputs = head({level: tf.ones([1, *shape[1:]]) for level, shape in PYRAMID_SHAPES.items()})
    inner_logits = outputs["category_logits"].numpy().reshape(12, 12, -1)[4:8, 4:8]
    inner_kernels = outputs["kernels"].numpy().reshape(12, 12, -1)[4:8, 4:8]
    assert np.ptp(inner_logits, axis=(0, 1)).max() < 1e-6
    assert np.ptp(inner_kernels, axis=(0, 1)).max() > 1e-4
