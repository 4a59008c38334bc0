"""Every kind of backbone: levels, freezing, input normalisation, deterministic names."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import BackboneConfig
from solo_dist.errors import ConfigError
from solo_dist.models.backbones import build_backbone
from solo_dist.models.keras_backbone import normalisation_of

CHANNELS = {
    "resnet_tiny": (64, 128, 256, 512),
    "resnet18": (64, 128, 256, 512),
    "efficientnet_lite0": (24, 40, 112, 320),
    "keras:MobileNetV2": (144, 192, 576, 1280),
    "keras:EfficientNetB0": (144, 240, 672, 1280),
}
SLOW = {
    "resnet34": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "keras:ResNet50": (256, 512, 1024, 2048),
    "keras:EfficientNetV2B0": (32, 192, 672, 1280),
    "keras:ConvNeXtTiny": (96, 192, 384, 768),
    "resnet101": (256, 512, 1024, 2048),
    "keras:ResNet101": (256, 512, 1024, 2048),
    "keras:ResNet50V2": (64, 128, 256, 2048),
    "keras:MobileNetV3Large": (72, 240, 672, 960),
    "keras:EfficientNetV2S": (48, 256, 960, 1280),
    "keras:EfficientNetB3": (192, 288, 816, 1536),
    "keras:ConvNeXtSmall": (96, 192, 384, 768),
    "keras:DenseNet121": (128, 256, 512, 1024),
    "keras:VGG16": (256, 512, 512, 512),
}


def built(name, canvas=(64, 96), **options):
    backbone = build_backbone(BackboneConfig(name=name, **options))
    backbone.build((None, *canvas, 3))
    return backbone


def images(canvas=(64, 96)) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).integers(0, 256, (1, *canvas, 3)), tf.uint8)


@pytest.mark.parametrize(
    ("name", "channels"),
    [*CHANNELS.items(), *[pytest.param(*item, marks=pytest.mark.slow) for item in SLOW.items()]],
)
def test_levels_have_their_strides(name, channels):
    backbone = built(name)
    expected = [(1, 64 // stride, 96 // stride, c) for stride, c in zip((4, 8, 16, 32), channels, strict=True)]
    outputs = backbone(images())
    assert [tuple(output.shape) for output in outputs] == expected
    assert [tuple(shape[1:]) for shape in backbone.compute_output_shape((None, 64, 96, 3))] == [s[1:] for s in expected]
    assert all(np.isfinite(output).all() for output in outputs)
    # The second one in a process has the same names, or its checkpoints would be another model's.
    paths = [variable.path for variable in backbone.variables]
    assert len(set(paths)) == len(paths)
    assert paths == [variable.path for variable in built(name).variables]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "keras:MobileNetV2"])
def test_frozen_stages_grow(name):
    counts = [len(built(name, frozen_stages=stages).trainable_variables) for stages in (-1, 0, 2, 4)]
    assert counts[-1] == 0
    assert all(more > fewer for more, fewer in zip(counts, counts[1:], strict=False))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_what_is_frozen_gets_no_gradient(name):
    backbone = built(name, frozen_stages=2)
    with tf.GradientTape() as tape:
        loss = tf.add_n([tf.reduce_sum(output) for output in backbone(images(), training=True)])
    gradients = tape.gradient(loss, [variable.value for variable in backbone.variables])
    trained = {v.path for v, g in zip(backbone.variables, gradients, strict=True) if g is not None}
    assert trained == {variable.path for variable in backbone.trainable_variables}


@pytest.mark.parametrize("name", ["resnet_tiny", "keras:MobileNetV2"])
@pytest.mark.parametrize("norm", ["frozen_batch", "batch"])
def test_moving_statistics_change_only_in_training_of_batch_norm(name, norm):
    backbone = built(name, norm=norm, frozen_stages=-1)
    before = [variable.numpy() for variable in backbone.non_trainable_variables]
    backbone(images(), training=False)
    unchanged = [variable.numpy() for variable in backbone.non_trainable_variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, unchanged, strict=True))
    backbone(images(), training=True)
    after = [variable.numpy() for variable in backbone.non_trainable_variables]
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert not any(changed) if norm == "frozen_batch" else all(changed)


def keras_own_input(name: str, pixels: np.ndarray) -> np.ndarray:
    """What keras.applications makes of the pixels itself, in its functions and layers."""
    module = {"ResNet50": "resnet", "MobileNetV2": "mobilenet_v2", "ResNet50V2": "resnet_v2"}.get(name)
    if module:
        return getattr(keras.applications, module).preprocess_input(pixels.copy())
    network = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(64, 64, 3))
    x = pixels
    for layer in network.layers:
        if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization):
            x = layer(x)
    return np.asarray(x)


@pytest.mark.parametrize(
    "name",
    [
        "ResNet50",
        "MobileNetV2",
        "ResNet50V2",
        "EfficientNetV2B0",
        "EfficientNetV2S",
        "ConvNeXtTiny",
        "MobileNetV3Small",
    ],
)
def test_input_is_normalised_as_keras_does(name):
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    mean, std, bgr = normalisation_of(name)
    actual = ((pixels[..., ::-1] if bgr else pixels) - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(actual, keras_own_input(name, pixels), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "keras:ResNet51"}, "keras:ResNet51"),
        ({"name": "keras:Xception"}, "1/4 of the canvas"),
        ({"name": "keras:ResNet50", "norm": "group"}, "model.backbone.norm=group"),
        ({"name": "keras:Foo"}, "known families"),
        ({"name": "efficientnet_lite0", "blocks": (1, 1, 1, 1)}, "options of the resnets"),
        ({"name": "keras:ResNet50", "zero_init_residual": False}, "options of the resnets"),
    ],
)
def test_what_cannot_work_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        built(canvas=(96, 96), **options)


def test_stride_can_sit_in_the_1x1():
    strides = {}
    for first in (False, True):
        block = built("resnet50", stride_in_1x1=first).stages[1].blocks[0]
        strides[first] = [conv.strides for conv in block.convs]
    assert strides == {False: [1, 2, 1], True: [2, 1, 1]}


@pytest.mark.parametrize("name", ["resnet_tiny", "resnet18", "resnet50"])
def test_stages_have_the_blocks_and_widths_asked_for(name):
    backbone = built(name, width=16, widths=(24, 32, 40, 40), blocks=(1, 2, 1, 3), norm="group")
    assert [len(stage.blocks) for stage in backbone.stages] == [1, 2, 1, 3]
    expansion = 4 if name == "resnet50" else 1
    assert [output.shape[-1] for output in backbone(images())] == [expansion * w for w in (24, 32, 40, 40)]


def test_shortcuts_average_before_they_step():
    """The residual branch starts at 0, so that a block with ReLU is that of its shortcut alone."""
    backbone = built("resnet_tiny", width=16, norm="group", avg_down=True)
    block = backbone.stages[1].blocks[0]
    x = tf.random.stateless_normal([2, 8, 12, 16], (0, 1))
    averaged = x.numpy().reshape(2, 4, 2, 6, 2, 16).mean(axis=(2, 4))
    assert block.shortcut.strides == 1
    np.testing.assert_allclose(block(x), tf.nn.relu(block.shortcut(tf.constant(averaged))), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("zero", [True, False])
def test_residual_branches_start_closed_or_open(name, zero):
    backbone = built(name, zero_init_residual=zero, norm="group")
    last = [block.convs[-1].norm.gamma for stage in backbone.stages for block in stage.blocks]
    assert {float(value) for gamma in last for value in gamma.numpy()} == {0.0 if zero else 1.0}
