"""The pyramid's options; its numbers are checked with those of the whole network."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.models.fpn import FeaturePyramid

SHAPES = [(None, 64 // stride, 96 // stride, channels) for stride, channels in ((4, 8), (8, 12), (16, 16), (32, 16))]


def test_without_its_convolution_p2_is_the_sum_of_the_laterals():
    pyramid = FeaturePyramid(8, p2_conv=False, name="fpn")
    pyramid.build(SHAPES)
    features = [tf.random.stateless_normal([1, *shape[1:]], (0, i)) for i, shape in enumerate(SHAPES)]
    outputs = pyramid(features)
    assert [output.shape[1:3] for output in outputs.values()] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    expected = 0.0
    for lateral, feature in zip(pyramid.lateral.values(), features, strict=True):
        factor = 16 // feature.shape[1]
        expected += np.repeat(np.repeat(lateral(feature), factor, axis=1), factor, axis=2)
    np.testing.assert_allclose(outputs["p2"], expected, rtol=1e-4, atol=1e-5)
    convolutions = {variable.path.split("/")[1] for variable in pyramid.variables if "output" in variable.path}
    assert convolutions == {"output3", "output4", "output5"}


@pytest.mark.parametrize(
    ("levels", "layers"),
    [
        (("p3", "p5"), {"lateral3", "lateral4", "lateral5", "output3", "output5"}),
        (("p4", "p6"), {"lateral4", "lateral5", "output4", "output5"}),
    ],
)
def test_only_what_the_wanted_levels_need_exists(levels, layers):
    """And what exists computes the same as in the whole pyramid."""
    whole, part = FeaturePyramid(8, name="fpn"), FeaturePyramid(8, levels, name="fpn")
    for pyramid in (whole, part):
        pyramid.build(SHAPES)
    assert {variable.path.split("/")[1] for variable in part.variables} == layers
    values = {variable.path: variable for variable in whole.variables}
    for variable in part.variables:
        variable.assign(values[variable.path])
    features = [tf.random.stateless_normal([1, *shape[1:]], (0, i)) for i, shape in enumerate(SHAPES)]
    outputs, expected = part(features), whole(features)
    assert set(levels) <= set(outputs)
    assert {level: tuple(x.shape[1:]) for level, x in outputs.items()} == {
        level: shape[1:] for level, shape in part.compute_output_shape(SHAPES).items()
    }
    for level in levels:
        np.testing.assert_allclose(outputs[level], expected[level], rtol=1e-5, atol=1e-6)
