"""Post-processing in static form against `detect`, the official numbers, and the operations that converters know."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import GridConfig, ModelConfig, PostprocessConfig
from solo_dist.errors import ConfigError
from solo_dist.solo.postprocess import detect
from solo_dist.solo.static_postprocess import count_pairs, detect_static
from tests.solo.test_postprocess import (
    SMALL,
    SMALL_MODEL,
    check_detections,
    config_of,
    infer_outputs,
    random_outputs,
)

OTHERS = ("while", "map", "switch", "if", "bitcast", "bitwise", "population", "string", "partitionedcall")


def assert_same(found, expected):
    """Detections of a batch: equal but for rounding, and for what lies beyond the count."""
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in expected.items()}
    assert found["count"].numpy().tolist() == expected["count"].numpy().tolist()
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=1e-5)
    for i, count in enumerate(expected["count"]):
        assert np.array_equal(found["categories"][i, :count], expected["categories"][i, :count])
        masks = (values["mask_probabilities"][i, :count] for values in (found, expected))
        np.testing.assert_allclose(*masks, atol=1e-5)


@pytest.mark.parametrize("name", ["infer_headsmall_default", "infer_planted_default"])
def test_static_postprocessing_is_the_official_one(golden, name):
    vector = golden(name)
    outputs = {key: value[:1] for key, value in infer_outputs(golden, name).items()}
    pairs = int(count_pairs(outputs, ModelConfig(), config_of(vector))[0])
    assert pairs > 500  # so that the official limit of candidates counts
    found = detect_static(outputs, ModelConfig(), config_of(vector), pairs)
    arrays = {key: value.numpy() for key, value in found.items()}
    check_detections(arrays, vector, 0, tuple(vector["img_shape"]), tuple(vector["ori_shape"]))


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_static_detections_are_those_of_detect(kernel):
    config = PostprocessConfig(max_candidates=200, max_detections=40, nms_kernel=kernel)
    outputs = random_outputs(seed=3, batch=3)
    pairs = max(count_pairs(outputs, SMALL_MODEL, config).numpy())
    assert pairs > 200
    expected = detect(outputs, SMALL_MODEL, config)
    assert min(expected["count"].numpy()) > 10
    assert_same(detect_static(outputs, SMALL_MODEL, config, pairs), expected)


def test_fewer_pairs_than_detections_are_padded():
    outputs = random_outputs(seed=4, batch=2, categories=1)
    config = PostprocessConfig(max_candidates=5, max_detections=8)
    static = detect_static(outputs, SMALL_MODEL, config, pairs=5)
    assert static["scores"].shape == (2, 8) and max(static["count"].numpy()) <= 5
    nothing = detect_static(random_outputs(seed=0, batch=2, shift=-30.0), SMALL_MODEL, config, pairs=5)
    assert nothing["count"].numpy().tolist() == [0, 0] and not nothing["scores"].numpy().any()


def test_pairs_above_the_threshold_are_counted():
    logits = np.full([2, SMALL.num_cells, 4], -9.0, np.float32)
    logits[0, [5, 60], [0, 1]] = 1.0
    logits[0, 60, 2] = 2.0
    logits[1, [0, 1], 3] = 1.0, 0.5  # the second is suppressed by its left neighbour
    outputs = random_outputs(seed=0, batch=2) | {"category_logits": tf.constant(logits)}
    assert count_pairs(outputs, SMALL_MODEL, PostprocessConfig()).numpy().tolist() == [3, 1]


MEMBERS = {
    "solo": lambda rng, level, size, cells: {
        f"mask_features_{level}": rng.normal(size=[2, *size, 7]),
        f"kernels_{level}": rng.normal(size=[2, cells, 7]),
    },
    "decoupled_solo": lambda rng, level, size, cells: {
        f"mask_{axis}_{level}": rng.normal(size=[2, *size, round(cells**0.5)]) + 1 for axis in "xy"
    },
}


@pytest.mark.parametrize("head", MEMBERS)
def test_every_member_of_the_family_has_static_detections(head):
    grid = GridConfig(levels=("p3", "p4", "p5"), sizes=(10, 8, 4), scale_ranges=((1, 64), (32, 128), (64, 512)))
    rng = np.random.default_rng(1)
    outputs = {"category_logits": rng.normal(size=[2, grid.num_cells, 3]) - 1}
    for level, size, stride in zip(grid.levels, grid.sizes, (4, 8, 16), strict=True):
        outputs |= MEMBERS[head](rng, level, (64 // stride, 96 // stride), size * size)
    outputs = {name: tf.constant(value, tf.float32) for name, value in outputs.items()}
    model = ModelConfig(head=head, grid=grid)
    config = PostprocessConfig(max_candidates=600, max_detections=30)
    expected = detect(outputs, model, config)
    assert min(expected["count"].numpy()) > 10
    assert_same(detect_static(outputs, model, config, pairs=600), expected)


def test_the_graph_has_neither_loops_nor_bits_nor_functions():
    outputs = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in random_outputs(0, batch=2).items()}
    run = tf.function(lambda outputs: detect_static(outputs, SMALL_MODEL, PostprocessConfig(), 900), autograph=False)
    graph = run.get_concrete_function(outputs).graph
    operations = {operation.type.lower() for operation in graph.get_operations()}
    assert "topkv2" in operations
    assert not [operation for operation in operations for word in OTHERS if word in operation]
    assert all(tensor.shape.is_fully_defined() for tensor in graph.outputs)


def test_one_label_an_instance_is_refused_with_a_remedy():
    with pytest.raises(ConfigError, match="one_category .* --format=savedmodel"):
        detect_static(random_outputs(0), SMALL_MODEL, PostprocessConfig(one_category=True), 500)
