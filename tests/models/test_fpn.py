"""The pyramid's options; its numbers are checked with those of the whole network."""

import numpy as np
import tensorflow as tf

from solo_dist.models.fpn import FeaturePyramid

SHAPES = [(None, 64 // stride, 96 // stride, channels) for stride, channels in ((4, 8), (8, 12), (16, 16), (32, 16))]


def test_without_its_convolution_p2_is_the_sum_of_the_laterals():
    pyramid = FeaturePyramid(8, p2_conv=False, name="fpn")
    pyramid.build(SHAPES)
    features = [tf.random.stateless_normal([1, *shape[1:]], (0, i)) for i, shape in enumerate(SHAPES)]
    outputs = pyramid(features)
    assert [output.shape[1:3] for output in outputs] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    expected = 0.0
    for lateral, feature in zip(pyramid.lateral, features, strict=True):
        factor = 16 // feature.shape[1]
        expected += np.repeat(np.repeat(lateral(feature), factor, axis=1), factor, axis=2)
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-4, atol=1e-5)
    convolutions = {variable.path.split("/")[1] for variable in pyramid.variables if "output" in variable.path}
    assert convolutions == {"output3", "output4", "output5"}
