"""Several data sets in one training: shares, order, resuming."""

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.config import Config, DataConfig
from solo_dist.data.input import pipeline
from solo_dist.data.input.mixture import BLOCK, Mixture, slots_of
from solo_dist.errors import ConfigError
from tests.data.input.test_pipeline import assert_same, make_coco, read, recipe, shard


def test_shares_are_rounded_to_whole_positions():
    assert slots_of([2, 1]) == [667, 333] and slots_of([1.0]) == [BLOCK] and slots_of([1, 1, 1]) == [334, 333, 333]
    assert slots_of([1, 5, 4]) == [100, 500, 400]


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_set_sees_its_positions_once_and_has_its_share_of_every_block(shuffle):
    config = Config(data=DataConfig(mix=("a", "b"), mix_weights=(0.5, 0.3, 0.2), shuffle=shuffle))
    mixture = Mixture(config, [9, 9, 9])

    def place(position):
        number = mixture.set_of(position)
        return number, tf.switch_case(number, [lambda n=n: mixture.within(position, n) for n in range(3)])

    found = np.array(list(tf.data.Dataset.range(3 * BLOCK).map(place).as_numpy_iterator()))
    for number, share in enumerate((500, 300, 200)):
        assert sorted(found[found[:, 0] == number, 1]) == list(range(3 * share))
        assert [(block[:, 0] == number).sum() for block in np.split(found, 3)] == [share] * 3
    assert (np.diff(found[:BLOCK, 0]) < 0).any() == shuffle
    assert (found[:BLOCK, 0] != found[BLOCK : 2 * BLOCK, 0]).any() == shuffle


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[str]:
    made = []
    for number, count in enumerate((5, 3)):
        folder = tmp_path_factory.mktemp("mixed")
        make_coco(folder / "images", num_images=count)
        made.append(shard(folder / "images", folder / f"set{number}", num_shards=1))
    return made


def test_a_mixture_is_resumed_at_any_position(folders):
    config = recipe(folders[0], mix=(folders[1],), mix_weights=(1.0, 3.0))
    whole = read(pipeline.build_dataset(config, "train", batch_size=4), 12)
    assert_same(read(pipeline.build_dataset(config, "train", batch_size=4, start_position=28), 2), whole[7:9])
    # The first image of the larger set alone has this number.
    numbers = np.concatenate([batch["image_id"] for batch in whole])
    assert {103, 104} & set(numbers) and np.isin(numbers, [100, 101, 102]).mean() > 0.7


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"mix": ("a",), "mix_weights": (1.0,)}, r"must be 2 numbers above 0: for data.train and each of data.mix"),
        ({"mix": ("a",), "mix_weights": (1.0, 0.0)}, r"must be 2 numbers above 0"),
        ({"mix": ("a",), "max_bad_records": 3}, "data.max_bad_records counts the records of one folder"),
    ],
)
def test_impossible_mixtures_are_refused(data, words):
    with pytest.raises(ConfigError, match=words):
        Config(data=DataConfig(**data)).validate()


def test_a_share_of_nothing_is_refused():
    config = Config(data=DataConfig(mix=("a",), mix_weights=(1.0, 1e-5)))
    with pytest.raises(ConfigError, match="less than one image in 1000; raise its weight"):
        Mixture(config, [1, 1])
