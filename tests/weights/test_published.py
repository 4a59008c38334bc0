"""Models of mmdetection by name: the table, names in the files, and the whole way from a server into a network."""

import dataclasses
import gzip
import hashlib
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from solo_dist import recipes
from solo_dist.errors import ConfigError
from solo_dist.solo.network import build_model
from solo_dist.weights import published
from solo_dist.weights.errors import WeightsError
from solo_dist.weights.load import load_model_weights
from solo_dist.weights.match import match_weights, variables_by_name
from solo_dist.weights.names import official_name

GOLDEN = Path(__file__).parents[1] / "golden"
OFFICIAL = json.loads((GOLDEN / "state_dict_keys.json").read_text()) | json.loads(
    gzip.decompress((GOLDEN / "state_dict_keys_solo_dcn.json.gz").read_bytes())
)
MMDETECTION = json.loads(gzip.decompress((GOLDEN / "mmdet3_state_dict_keys.json.gz").read_bytes()))
# mmdetection's configuration, the official one of the same network, and our name for mmdetection's model.
SAME = [
    ("solov2_r50_fpn_1x_coco", "SOLOv2_R50_3x", "solov2_r50_fpn_1x"),
    ("solov2-light_r50_fpn_ms-3x_coco", "SOLOv2_Light_448_R50_3x", "solov2_light_r50_fpn_3x"),
    ("solov2_r101-dcn_fpn_ms-3x_coco", "SOLOv2_R101_DCN_3x", "solov2_r101_dcn_fpn_3x"),
    ("solo_r50_fpn_1x_coco", "SOLO_R50_1x", "solo_r50_fpn_1x"),
    ("decoupled-solo_r50_fpn_1x_coco", "DECOUPLED_SOLO_R50_1x", "decoupled_solo_r50_fpn_1x"),
    ("decoupled-solo-light_r50_fpn_3x_coco", "DECOUPLED_SOLO_LIGHT_R50_3x", "decoupled_solo_light_r50_fpn_3x"),
]
LIGHT_R18 = "solov2-light_r18_fpn_ms-3x_coco"


def shapes(entry: dict) -> dict[str, list[int]]:
    return dict(entry["state_dict"])


def random_arrays(entry: dict) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        name: generator.uniform(0.5, 1.5, shape).astype(np.float32) if shape else np.array(3, np.int64)
        for name, shape in shapes(entry).items()
    }


@pytest.mark.parametrize(("theirs", "official", "name"), SAME)
def test_names_of_mmdetection_are_official_ones_renamed(theirs, official, name):
    renamed = {official_name(key): shape for key, shape in shapes(MMDETECTION[theirs]).items()}
    assert renamed == {key.replace("dsolo_cate", "solo_cate"): s for key, s in shapes(OFFICIAL[official]).items()}
    (model,) = [model for model in published.MODELS if model.name == name]
    assert model.parameters == MMDETECTION[theirs]["total_params"] == OFFICIAL[official]["total_params"]


@pytest.mark.parametrize(
    ("theirs", "recipe"),
    [
        ("solov2_r50_fpn_1x_coco", "solov2_r50_fpn_1x"),
        (LIGHT_R18, "solov2_light_448_r18_fpn_3x"),
        ("solov2-light_r50_fpn_ms-3x_coco", "solov2_light_448_r50_fpn_3x"),
        ("solo_r50_fpn_1x_coco", "solo_r50_fpn_1x"),
        ("decoupled-solo_r50_fpn_1x_coco", "decoupled_solo_r50_fpn_1x"),
        ("decoupled-solo-light_r50_fpn_3x_coco", "decoupled_solo_light_r50_fpn_3x"),
    ],
)
def test_every_array_of_a_published_model_has_its_variable(theirs, recipe):
    config = recipes.get(recipe).model
    config.num_categories = 80
    model = build_model(config, (64, 64))
    match = match_weights(random_arrays(MMDETECTION[theirs]), variables_by_name(model), "file")
    match.check(strict=True)
    assert match.origin == "mmdetection" and not match.reinitialised
    assert all(name.endswith("num_batches_tracked") for name in match.not_needed)


DEFORMABLE = [
    ("official SOLO", OFFICIAL["SOLOv2_LIGHT_512_DCN_R50_3x"], "solov2_light_512_dcn_r50"),
    ("official SOLO", OFFICIAL["SOLOv2_X101_DCN_3x"], "solov2_x101_dcn_fpn_3x"),
    ("mmdetection", MMDETECTION["solov2_r101-dcn_fpn_ms-3x_coco"], "solov2_r101_dcn_fpn_3x"),
]


@pytest.mark.parametrize(("origin", "entry", "recipe"), DEFORMABLE)
def test_every_array_of_a_deformable_model_has_its_variable(origin, entry, recipe):
    """Shapes only. The official names of R101 are those of mmdetection before they are renamed (see above)."""
    config = recipes.get(recipe).validate().model
    config.num_categories = 80
    with keras.StatelessScope(initialize_variables=False):
        model = build_model(config, (64, 64))
    learned = [variable for variable in model.variables if "moving_" not in variable.path]
    assert sum(math.prod(variable.shape) for variable in learned) == entry["total_params"]
    variables = {name: tf.TensorSpec(variable.shape) for name, variable in variables_by_name(model).items()}
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes(entry).items()}
    match = match_weights(arrays, variables, "file")
    match.check(strict=True)
    assert match.origin == origin and all(name.endswith("num_batches_tracked") for name in match.not_needed)


def test_the_table_says_what_the_publisher_says():
    assert len({model.name for model in published.MODELS}) == len(published.MODELS) == 11
    model = published.find("mmdet:solov2_light_r18_fpn_3x")
    assert model.parameters == MMDETECTION[LIGHT_R18]["total_params"]
    assert model.url == (
        "https://download.openmmlab.com/mmdetection/v2.0/solov2/solov2_light_r18_fpn_3x_coco/"
        "solov2_light_r18_fpn_3x_coco_20220511_083717-75fa355b.pth"
    )
    assert published.find("mmdet:decoupled_solo_r50_fpn_1x").url.startswith(
        "https://download.openmmlab.com/mmdetection/v2.0/solo/decoupled_solo_r50_fpn_1x_coco/decoupled_solo_"
    )
    with pytest.raises(ConfigError, match="mmdet:solov3 is no published model; known are solov2_light_r18_fpn_3x,"):
        published.find("mmdet:solov3")


@pytest.fixture
def light_r18(write_pth, file_server, cache, monkeypatch) -> dict[str, np.ndarray]:
    """A file with the names and shapes of the published one on a mirror, and the table with the digits of that file."""
    arrays = random_arrays(MMDETECTION[LIGHT_R18])
    content = write_pth(arrays, "zip", "state_dict")
    real = published.find("mmdet:solov2_light_r18_fpn_3x")
    file = f"solov2_light_r18_fpn_3x_coco_20220511_083717-{hashlib.sha256(content).hexdigest()[:8]}"
    model = dataclasses.replace(real, file=file)
    monkeypatch.setattr(published, "MODELS", (model,))
    monkeypatch.setenv("SOLO_DIST_MMDET_URL", file_server.url)
    folder = file_server.folder / "solov2" / "solov2_light_r18_fpn_3x_coco"
    folder.mkdir(parents=True)
    (folder / f"{file}.pth").write_bytes(content)
    return arrays


def test_a_model_by_name_comes_from_the_server_into_the_network(light_r18, file_server, cache):
    config = recipes.get("solov2_light_448_r18_fpn_3x").model
    config.num_categories = 80
    model = build_model(config, (64, 64))
    file_server.cuts = 1
    load_model_weights(model, "mmdet:solov2_light_r18_fpn_3x")
    assert published.MODELS[0].is_cached
    variables = variables_by_name(model)
    expected = light_r18["mask_head.mask_feature_head.convs_all_levels.3.conv1.conv.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(variables["mask_head/p5_conv1/kernel"], expected)
    np.testing.assert_array_equal(variables["head/category/bias"], light_r18["mask_head.conv_cls.bias"])


def test_a_model_by_name_of_another_network_is_refused(light_r18):
    config = recipes.get("shapes_tiny").model
    config.num_categories = 80
    with pytest.raises(WeightsError, match="mmdet:solov2_light_r18_fpn_3x .mmdetection. does not fit the model"):
        load_model_weights(build_model(config, (64, 64)), "mmdet:solov2_light_r18_fpn_3x")


def test_a_model_that_is_another_file_is_refused(file_server, cache, monkeypatch):
    monkeypatch.setenv("SOLO_DIST_MMDET_URL", file_server.url)
    model = published.find("mmdet:solo_r50_fpn_1x")
    path = file_server.folder / model.url.removeprefix(f"{file_server.url}/")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="its SHA-256 begins with .* and not with 2290a6b8"):
        published.local_path("mmdet:solo_r50_fpn_1x")
    assert not model.is_cached
