"""The interface that every member of the family keeps, whatever it is made of."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import BackboneConfig, Config, GridConfig, LossConfig, ModelConfig
from solo_dist.errors import ConfigError
from solo_dist.solo.family import MEMBERS, OPTIONS, find_member, target_spec
from solo_dist.solo.network import build_model
from solo_dist.solo.targets import mask_key

CANVAS = (64, 96)
SMALL = {
    "num_categories": 3,
    "backbone": BackboneConfig(name="resnet_tiny", width=16, norm="group", frozen_stages=-1),
    "fpn_channels": 32,
    "head_channels": 32,
    "head_convs": 1,
    "kernel_channels": 8,
    "mask_channels": 32,
    "norm_groups": 8,
}
THREE = GridConfig(levels=("p2", "p4", "p6"), sizes=(7, 5, 3), scale_ranges=((1, 50), (20, 90), (60, 500)))


@pytest.mark.parametrize("changes", [{}, {"grid": THREE}, {"grid": THREE, "mask_features": "separate"}])
@pytest.mark.parametrize("head", MEMBERS)
def test_a_member_keeps_its_promises(head, changes):
    values = SMALL | changes
    lacking = set(OPTIONS) - MEMBERS[head].options
    config = ModelConfig(head=head, **{name: value for name, value in values.items() if name not in lacking})
    model = build_model(config, CANVAS)
    member, grid = find_member(config), config.grid
    outputs = model(tf.zeros([2, *CANVAS, 3], tf.uint8))
    assert outputs["category_logits"].shape == (2, grid.num_cells, 3)
    assert outputs["category_logits"].dtype == tf.float32
    names = {variable.path.split("/", 1)[1] for variable in model.variables}
    assert {"head/category/kernel", "head/category/bias"} <= names
    assert {name.split("/")[0] for name in names} == {"backbone", "fpn", *model.heads}
    spec = member.target_spec(grid)
    assert spec.mask_strides[0] == 4 and mask_key(4) == "masks"
    next_cell = 0
    for mask_map in member.mask_maps(outputs, grid):
        assert mask_map.first_cell == next_cell
        next_cell += mask_map.num_cells
        assert mask_map.stride in spec.mask_strides
        assert mask_map.mask_size == (CANVAS[0] // 4, CANVAS[1] // 4)
        for features, kernels in zip(mask_map.features, mask_map.kernels, strict=True):
            assert features.shape[:3] == (2, CANVAS[0] // mask_map.stride, CANVAS[1] // mask_map.stride)
            assert kernels.shape == (2, mask_map.num_cells, features.shape[3])
        assert np.isfinite(mask_map.probabilities(tf.zeros([2, 1], tf.int32))).all()
    assert next_cell == grid.num_cells


OTHER_VALUES = {
    "kernel_channels": 8,
    "kernel_groups": 3,
    "mask_channels": 32,
    "mask_features": "separate",
    "shared_tower": True,
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("head", MEMBERS)
def test_an_option_without_effect_is_an_error_that_names_it(head, option):
    plain = ModelConfig(head=head)
    config = dataclasses.replace(plain, **{option: OTHER_VALUES[option]})
    if option in find_member(plain).options:
        find_member(config)
    else:
        with pytest.raises(ConfigError, match=f"model.{option}=.* has no effect with model.head={head}; leave it at"):
            find_member(config)


@pytest.mark.parametrize("head", MEMBERS)
def test_coverage_is_for_masks_of_one_stride(head):
    config = Config(model=ModelConfig(head=head), loss=LossConfig(mask_target="coverage"))
    if target_spec(Config(model=config.model)).mask_strides == (4,):
        assert target_spec(config).coverage
    else:
        with pytest.raises(ConfigError, match=f"loss.mask_target=coverage has no meaning with model.head={head}"):
            target_spec(config)
