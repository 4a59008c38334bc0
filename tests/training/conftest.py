"""Shards for runs of seconds."""

import pytest

from solo_dist.data.sharding.demo_data import ensure_shapes
from tests.distributed import tiny


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Folders of 12 training and 4 validation images, sharded for the config of tiny.py."""
    return ensure_shapes(str(tmp_path_factory.mktemp("shapes")), tiny.get_config(), 12, 4)
