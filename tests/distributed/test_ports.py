"""A port that another process listens on is named, before gRPC would share it."""

import socket

import pytest

from solo_dist.distributed import ports
from solo_dist.distributed.cluster import wait
from solo_dist.distributed.cluster.cluster import Cluster
from solo_dist.errors import ConfigError


@pytest.fixture(params=["", "localhost"])
def taken(request):
    """A port that is in use, shared as gRPC does it."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((request.param, 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_in_use_is_named(taken):
    with pytest.raises(ConfigError, match=f"--port={taken}: port {taken} is in use by another process"):
        ports.check_free(taken, f"--port={taken}")


def test_a_free_port_is_free_again_after_the_check():
    with ports.listen(0) as other:
        port = other.getsockname()[1]
    for _ in range(2):
        ports.check_free(port, "--port")


def test_a_worker_whose_port_stays_in_use_says_so(taken, monkeypatch):
    monkeypatch.setattr(wait, "_PORT_SECONDS", 0.0)
    with pytest.raises(ConfigError, match=f"worker 0 at localhost:{taken}: port {taken} is in use"):
        wait.wait_for_workers(Cluster((f"localhost:{taken}",), 0))
