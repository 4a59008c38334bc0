"""The schema: its defaults are valid, what is refused, and config.json of this and earlier versions."""

import dataclasses
import json

import pytest

from solo_dist.config import AugmentConfig, Config, DataConfig, GridConfig, ModelConfig, TrainConfig, parse_canvas
from solo_dist.errors import ConfigError


def test_the_defaults_are_valid():
    assert Config().validate() == Config()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(data=DataConfig(canvas=(448, 770))), r"data.canvas=\(448, 770\) must be .* for example \(448, 768\)"),
        (Config(data=DataConfig(canvas=(448,))), "data.canvas=.* must be height, width"),
        (
            Config(data=DataConfig(augment=AugmentConfig(crop=0.5))),
            "augment.crop=0.5 must be at least 0 and below",
        ),
        (
            Config(data=DataConfig(canvas=(448, 768), augment=AugmentConfig(turn=True))),
            "augment.turn needs a square canvas.* data.canvas=768,768",
        ),
        (Config(data=DataConfig(augment=AugmentConfig(scale=(2.0, 1.0)))), "data.augment.scale=.*0 < smallest"),
        (Config(model=ModelConfig(head_convs=8)), "model.head_convs=8 must be at least 1 and at most 7"),
        (Config(model=ModelConfig(grid=GridConfig(sizes=(3,)))), "model.grid has 5 levels, 1 sizes"),
        (Config(train=TrainConfig(micro_batch="0")), "train.micro_batch='0' must be auto or a positive number"),
        (Config(train=TrainConfig(steps=9, minutes=5)), "train.steps=9 and train.minutes=5 both say how long"),
        (Config(train=TrainConfig(steps=0)), "train.steps=0 needs a time: set train.minutes"),
        (Config(train=TrainConfig(steps=0, minutes=5)), "train.minutes leaves .* set optimizer.schedule=cosine"),
        (Config(train=TrainConfig(recompute="some")), "train.recompute='some' is not one of none, heads, all"),
    ],
)
def test_what_cannot_work_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        config.validate()


def test_json_and_lists():
    config = Config(data=DataConfig(canvas=[64, 96]), model=ModelConfig(grid=GridConfig(scale_ranges=[[1, 2]] * 5)))
    read = Config.from_json(config.to_json())
    assert read == config.validate()
    assert read.data.canvas == (64, 96) and read.model.grid.scale_ranges[0] == (1, 2)


def test_config_of_an_earlier_version():
    values = dataclasses.asdict(Config(train=TrainConfig(panel_every=7)))
    values["train"]["picture_every"] = values["train"].pop("panel_every")
    assert Config.from_json(json.dumps(values)).train.panel_every == 7


def test_the_flag_canvas_is_height_and_width():
    assert parse_canvas("64x96") == (64, 96)


@pytest.mark.parametrize("text", ["64", "64x100", "0x64", "64x96x3", "-64x64", "64 x 96", ""])
def test_a_canvas_that_does_not_fit_is_refused(text):
    with pytest.raises(ConfigError, match=f"--canvas={text} must be HEIGHTxWIDTH in multiples of 32"):
        parse_canvas(text)
