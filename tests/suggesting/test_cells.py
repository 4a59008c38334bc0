"""Predicted cells are those that the shard tool counts for the same recipe, whether or not it keeps whole images."""

import numpy as np
import pytest

from solo_dist.config import GridConfig
from solo_dist.data.cells import count_cells
from solo_dist.data.sharding.counts import Counts
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.errors import DataError
from solo_dist.suggesting.facts import read_facts

GRID = GridConfig(levels=("p3", "p4"), sizes=(10, 6), scale_ranges=((2, 20), (14, 40)), center_sigma=0.5)


@pytest.fixture(scope="module")
def sharded(crowded, tmp_path_factory):
    """Manifests by (canvas, keep_original)."""

    def shard(canvas, keep_original):
        settings = ShardSettings(canvas, GRID, keep_original)
        output = str(tmp_path_factory.mktemp("shards") / "train")
        job = ShardJob(str(crowded / "instances.json"), str(crowded / "images"), output, settings)
        return shard_coco(job, processes=0, progress=False)

    return {key: shard(*key) for key in (((96, 128), False), ((160, 160), True))}


def test_predicted_counts_are_those_of_the_shard_tool(crowded, sharded):
    facts = read_facts([str(crowded / "instances.json")], 0)
    for (canvas, _), manifest in sharded.items():
        counted, predicted = Counts(**manifest.statistics), count_cells(facts.placed_on(canvas), GRID)
        assert predicted.objects == counted.instances == facts.num_objects
        assert predicted.colliding == counted.colliding > 20 and predicted.lost == counted.lost > 0
        assert predicted.without_positives == counted.without_positives > 10
        assert list(predicted.positives_per_level) == counted.positives_per_level
        assert predicted.most_positives == counted.max_positives
        assert facts.most_objects == counted.max_instances


def test_a_folder_of_shards_has_the_same_facts_as_its_json(crowded, sharded):
    of_json = read_facts([str(crowded / "instances.json")], 0)
    of_shards = read_facts([sharded[(96, 128), False].folder], 0)
    placed = [facts.placed_on((128, 128)) for facts in (of_json, of_shards)]
    assert np.array_equal(placed[0].boxes, placed[1].boxes) and np.array_equal(placed[0].centers, placed[1].centers)
    assert of_shards.categories == of_json.categories == ("cat", "dog")


def test_uncovered_sizes_are_those_outside_of_all_ranges(crowded):
    facts = read_facts([str(crowded / "instances.json")], 0)
    placed = facts.placed_on((96, 128))
    expected = sorted(size for size in placed.sizes.tolist() if not (2 <= size <= 20 or 14 <= size <= 40))
    uncovered = count_cells(placed, GRID).uncovered
    assert list(uncovered) == expected and uncovered[0] < 2 and uncovered[-1] > 40


def test_what_is_not_trained_on_is_counted_and_no_object(crowded, sharded):
    facts = read_facts([str(crowded / "instances.json")], 0)
    assert facts.num_images == 12 and facts.num_objects + facts.left_out == 11 * 14
    assert facts.left_out == sum(sharded[(96, 128), False].rejected.values()) >= 12
    some = read_facts([str(crowded / "instances.json")], 3)
    assert [image.width for image in some.images] == [120, 90, 100] and some.num_images == 12


def test_a_file_without_an_object_is_an_error(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}'
    )
    with pytest.raises(DataError, match=r"a.json: no object to train on; 1 images have no size in the json"):
        read_facts([str(path)], 0)
