"""Sizes of a model against numbers from elsewhere."""

import keras
import pytest

from solo_dist.config import BackboneConfig, ModelConfig
from solo_dist.models.description import describe
from solo_dist.solo.network import build_model


@pytest.fixture(scope="module")
def light_r18():
    config = ModelConfig(
        num_categories=80,
        backbone=BackboneConfig("resnet18"),
        head_channels=256,
        head_convs=2,
        kernel_channels=128,
    )
    return {part.name: part for part in describe(build_model(config, (224, 224)), (224, 224))}


def test_resnet18_has_the_size_that_torchvision_publishes(light_r18):
    """11,689,512 parameters and 1.814e9 multiply-adds with a classifier of 513,000 and 512,000."""
    assert light_r18["backbone"].parameters == 11_689_512 - 513_000
    assert light_r18["backbone"].multiply_adds == pytest.approx(1.814e9 - 0.512e6, rel=1e-3)


def test_heads_have_the_size_of_their_formulas(light_r18):
    cells = 40**2 + 36**2 + 24**2 + 16**2 + 12**2
    convolutions = 9 * cells * (256 * 256 * 3 + 258 * 256 + 256 * 80 + 256 * 128)
    assert light_r18["head"].multiply_adds == pytest.approx(convolutions, rel=0.01)
    assert light_r18["head"].multiply_adds > convolutions  # the resizing
    assert light_r18["head"].parameters == light_r18["head"].trainable == 2_845_392


@pytest.mark.slow
def test_a_deformable_convolution_has_the_size_of_an_ordinary_one_and_of_its_offsets():
    def part_of(**options):
        config = ModelConfig(num_categories=80, backbone=BackboneConfig("resnet18"), head_channels=64, **options)
        with keras.StatelessScope(initialize_variables=False):
            return build_model(config, (64, 64))

    cells = 40**2 + 36**2 + 24**2 + 16**2 + 12**2
    plain, deformable = (
        {part.name: part for part in describe(part_of(**options), (64, 64))}
        for options in ({}, {"head_deformable": "v2", "head_deformable_convs": "last"})
    )
    added = deformable["head"].multiply_adds - plain["head"].multiply_adds
    assert added == 2 * cells * 9 * 64 * 27
    assert deformable["head"].parameters - plain["head"].parameters == 2 * (9 * 64 + 1) * 27


def test_frozen_parameters_are_not_trainable(light_r18):
    stem_and_stage_1 = 9408 + 128 + 4 * (36_864 + 128)
    assert light_r18["backbone"].parameters - light_r18["backbone"].trainable == stem_and_stage_1
