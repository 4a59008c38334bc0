"""Layers with deformable convolutions, and stages of ResNet and ResNeXt, against the official ones."""

import json

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import BackboneConfig
from solo_dist.errors import ConfigError
from solo_dist.models.backbones import build_backbone
from solo_dist.models.layers import ConvNorm
from solo_dist.models.resnet import ARRANGEMENTS, Arrangement, ResidualBlock
from solo_dist.weights.names import translate
from tests.models.test_deformable import nhwc, relative


def part(golden, case: str, prefix: str = "") -> dict[str, np.ndarray]:
    """The fields of a case whose names go on with the prefix, without both."""
    start = f"{case}_{prefix}"
    return {key.removeprefix(start): value for key, value in golden("dcn_ops").items() if key.startswith(start)}


def hwio(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel


@pytest.mark.parametrize(("case", "version"), [("pack1", "v1"), ("pack2", "v2"), ("pack2k1", "v2")])
def test_a_layer_with_its_offsets_is_the_official_one(golden, case, version):
    vector, weights = part(golden, case), part(golden, case, "w:")
    config = json.loads(str(vector["config"]))
    # Stored statistics of mean 0 and variance 1: the layer is its convolution.
    options = {"norm": "frozen_batch", "epsilon": 0.0, "activation": None, "deformable": version}
    layer = ConvNorm(6, config["kernel"], config["stride"], name="conv", **options)
    x = tf.constant(nhwc(vector["x"]))
    layer.build(x.shape)
    variables = {
        "weight": layer.kernel,
        "conv_offset.weight": layer.offset.kernel,
        "conv_offset.bias": layer.offset.bias,
    }
    for name, variable in variables.items():
        variable.assign(hwio(weights[name]))
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = layer(x)
    dx, gradients = tape.gradient(
        out, [x, {name: variable.value for name, variable in variables.items()}], tf.constant(nhwc(vector["grad_out"]))
    )
    assert relative(layer.offset(x), nhwc(vector["raw"])) <= 1e-5
    assert relative(out, nhwc(vector["out"])) <= 1e-5
    assert relative(dx, nhwc(vector["grad_x"])) <= 1e-4
    for name, expected in part(golden, case, "g:").items():
        assert relative(gradients[name], hwio(expected)) <= 1e-4, name


@pytest.mark.parametrize(("case", "version"), [("stage1", "v1"), ("stage2", "v2"), ("stagex", "v2")])
def test_bottlenecks_are_the_official_ones(golden, monkeypatch, case, version):
    vector = part(golden, case)
    sizes = json.loads(str(vector["config"]))
    groups = {"cardinality": sizes.get("groups", 1), "group_width": sizes.get("base_width", 64)}
    monkeypatch.setitem(ARRANGEMENTS, "case", Arrangement((1, 1, 1, 1), bottleneck=True, **groups))
    config = BackboneConfig(name="case")
    blocks = [
        ResidualBlock(
            config, sizes["planes"], sizes["stride"] if index == 0 else 1, index == 0, version, name=f"block{index}"
        )
        for index in range(sizes["blocks"])
    ]
    x = tf.constant(nhwc(vector["x"]))
    shape = tuple(x.shape)
    for block in blocks:
        block.build(shape)
        shape = block.compute_output_shape(shape)
    variables = {f"backbone/stage1/{v.path}": v for block in blocks for v in block.variables}
    official = {f"backbone.layer1.{name}": value for name, value in part(golden, case, "w:").items()}
    # By their marker names are recognised as those of a whole model.
    translated = translate(official | {"bbox_head.": np.zeros(1)}).arrays
    assert set(translated) == set(variables)
    for name, value in translated.items():
        variables[name].assign(value)
    learned = {name: variable.value for name, variable in variables.items() if "moving_" not in name}
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = x
        for block in blocks:
            out = block(out, training=True)
    dx, gradients = tape.gradient(out, [x, learned], tf.constant(nhwc(vector["grad_out"])))
    assert relative(out, nhwc(vector["out"])) <= 1e-5
    assert relative(dx, nhwc(vector["grad_x"])) <= 1e-4
    ours = dict(zip(translated, official, strict=True))
    norms = json.loads(str(vector["grad_norms"]))
    assert len(norms) == len(gradients)
    for name, gradient in gradients.items():
        their_name = ours[name].removeprefix("backbone.layer1.")
        assert np.linalg.norm(gradient) == pytest.approx(norms[their_name], rel=1e-4), name
        if f"g:{their_name}" in vector:
            assert relative(gradient, hwio(vector[f"g:{their_name}"])) <= 1e-4, name


def test_stages_2_to_4_are_deformable():
    backbone = build_backbone(BackboneConfig(name="resnext101_64x4d", deformable="v2"))
    for index, stage in enumerate(backbone.stages):
        for block in stage.blocks:
            assert [conv.offset is not None for conv in block.convs] == [False, index > 0, False]
            assert [conv.cardinality for conv in block.convs] == [1, 64, 1]
            assert block.convs[1].filters == 256 * 2**index == block.convs[2].filters


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_a_backbone_without_bottlenecks_is_refused(name):
    with pytest.raises(ConfigError, match=f"model.backbone.deformable=v1 is possible with .* not with .*{name}"):
        build_backbone(BackboneConfig(name=name, deformable="v1"))
