"""The entry point: what happens before there is a Trainer."""

import pytest

from solo_dist import train
from solo_dist.config import Config, DataConfig
from solo_dist.errors import ConfigError


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """A folder with finished shards of the training pictures only."""
    monkeypatch.setattr(train, "_SHAPES_WAIT_SECONDS", 1)
    manifest = tmp_path / "shapes/train/shards/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    return tmp_path / "shapes"


def test_the_command_that_goes_on_names_no_checkpoint(monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["train", "--resume", "runs/a/step_1", "--config.data.canvas=(64, 96)", "-resume=b"]
    )
    monkeypatch.delenv("SOLO_DIST_JOB_ID", raising=False)
    assert train._how_to_go_on().endswith(" -m solo_dist.train '--config.data.canvas=(64, 96)'")


def config(shapes, **data):
    return Config(data=DataConfig(shapes_folder=str(shapes), **data))


def test_a_worker_waits_for_the_shards_that_the_recipe_uses(shapes):
    uses = {"train": f"{shapes}/train/shards", "validation": f"{shapes}/validation/shards"}
    with pytest.raises(ConfigError, match=f"The chief did not make {shapes}"):
        train._make_missing_shapes(config(shapes, **uses), is_chief=False)
    train._make_missing_shapes(config(shapes, train=uses["train"], validation=""), is_chief=False)


def test_nothing_is_drawn_for_a_recipe_with_data_of_its_own(shapes):
    before = sorted(shapes.rglob("*"))
    for is_chief in (True, False):
        train._make_missing_shapes(config(shapes, train="mine/train", validation="mine/val"), is_chief)
    assert sorted(shapes.rglob("*")) == before
