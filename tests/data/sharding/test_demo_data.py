"""The data set of the demo: made by the chief if it is missing, while the others wait."""

import shutil

import pytest

from solo_dist.config import Config, DataConfig
from solo_dist.data.schema import load_manifest
from solo_dist.data.sharding.demo_data import ensure_shapes, make_missing_shapes
from solo_dist.errors import ConfigError


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """A folder with finished shards of the training images only, for `config`."""
    monkeypatch.setattr("solo_dist.data.sharding.demo_data._WAIT_SECONDS", 1)
    folder = tmp_path / "shapes"
    train_shards, validation = ensure_shapes(str(folder), config(folder), num_train=2, num_validation=1)
    assert train_shards == f"{folder}/train/shards"
    shutil.rmtree(validation)
    return folder


def config(shapes, **data):
    return Config(data=DataConfig(shapes_folder=str(shapes), canvas=(64, 64), **data))


def test_a_worker_waits_for_the_shards_that_the_recipe_uses(shapes):
    uses = {"train": f"{shapes}/train/shards", "validation": f"{shapes}/validation/shards"}
    with pytest.raises(ConfigError, match=f"The chief did not make {shapes}"):
        make_missing_shapes(config(shapes, **uses), is_chief=False)
    make_missing_shapes(config(shapes, train=uses["train"], validation=""), is_chief=False)


@pytest.mark.slow
def test_shards_for_other_grids_are_made_again_from_the_same_images(shapes):
    """As for a user of the demo whose data are from a version of the recipe that had other grids."""
    uses = {"train": f"{shapes}/train/shards", "validation": f"{shapes}/validation/shards"}
    now = config(shapes, **uses)
    now.model.grid.sizes = (12, 10, 8, 6, 4)
    with pytest.raises(ConfigError, match=f"The chief did not make {shapes}"):
        make_missing_shapes(now, is_chief=False)
    drawn = {path: path.stat().st_mtime_ns for path in shapes.glob("train/images/*")}
    assert len(drawn) == 2
    for folder in ensure_shapes(str(shapes), now, num_train=2, num_validation=1):
        load_manifest(folder).check_fits((64, 64), now.model.grid)
    assert {path: path.stat().st_mtime_ns for path in shapes.glob("train/images/*")} == drawn
    make_missing_shapes(now, is_chief=False)


def test_nothing_is_drawn_for_a_recipe_with_data_of_its_own(shapes):
    before = sorted(shapes.rglob("*"))
    for is_chief in (True, False):
        make_missing_shapes(config(shapes, train="mine/train", validation="mine/val"), is_chief)
    assert sorted(shapes.rglob("*")) == before
