"""tf.data service: how batches are put in order, and what an address must be. Real servers: tests/distributed."""

import socket

import pytest
import tensorflow as tf

from solo_dist.data.input import service
from solo_dist.errors import ConfigError


def batch(number: int) -> service.Batch:
    return {"number": tf.constant(number)}


def ordered(arrivals: list[int | None], most_waiting: int, count: int) -> tuple[list[int], list[int]]:
    """Numbers of the batches that come out, and of those that were made here."""
    made: list[int] = []
    incoming = iter(arrivals)

    def next_arrival() -> service.Batch | None:
        number = next(incoming, None)
        return None if number is None else batch(number)

    def make_here(number: int) -> service.Batch:
        made.append(number)
        return batch(number)

    batches = service.in_order(next_arrival, make_here, lambda b: int(b["number"]), most_waiting)
    return [int(next(batches)["number"]) for _ in range(count)], made


@pytest.mark.parametrize(
    ("arrivals", "made"),
    [
        pytest.param([0, 1, 2, 3, 4, 5], [], id="in order"),
        pytest.param([2, 0, 1, 5, 3, 4], [], id="out of order"),
        pytest.param([0, 0, 1, 2, 1, 3, 4, 5], [], id="twice"),
        pytest.param([1, 2, 3, 0, 4, 5], [0], id="later than three others"),
        pytest.param([0, 2, 3, None, 4, 5], [1], id="nothing comes"),
        pytest.param([0, 1, None], [2, 3, 4, 5], id="ended"),
    ],
)
def test_batches_are_put_in_order_and_gaps_are_filled(arrivals, made):
    assert ordered(arrivals, most_waiting=3, count=6) == (list(range(6)), made)


@pytest.mark.parametrize("address", ["localhost:5050", "grpc://localhost", "grpc://:5050", "grpc://localhost:port"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(ConfigError, match="data.service=.*must be grpc://host:port"):
        service.through_service(address, lambda numbers: numbers, int)


def test_a_dispatcher_that_is_not_there_is_named():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ConfigError, match="data.service=grpc://localhost:.*no dispatcher answers"):
        service.through_service(f"grpc://localhost:{port}", lambda numbers: numbers, int)


def test_a_late_batch_is_made_here_and_dropped_when_it_comes(monkeypatch):
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(service.time, "monotonic", lambda: next(clock))
    # With three seconds between looks at the clock, batch 0 is overdue before six others have come.
    numbers, made = ordered([1, 2, 3, 4, 5, 0, 6], most_waiting=50, count=7)
    assert numbers == list(range(7)) and made == [0]
