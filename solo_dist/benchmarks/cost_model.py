"""The time of a ring all-reduce, and the efficiency of W replicas that follows; see commands/cost_model.py."""

import dataclasses

BYTES_A_PARAMETER = 4


@dataclasses.dataclass(frozen=True)
class Link:
    """The slowest link of a ring."""

    bytes_per_second: float
    latency_seconds: float


def allreduce_bytes(parameters: float) -> float:
    """Bytes that one replica gives to the all-reduce of one step."""
    return BYTES_A_PARAMETER * parameters


def allreduce_seconds(size: float, replicas: int, link: Link) -> float:
    """Time of a ring all-reduce of `size` bytes."""
    hops = 2 * (replicas - 1)
    return hops / replicas * size / link.bytes_per_second + hops * link.latency_seconds


def efficiency(step_seconds: float, communication_seconds: float) -> float:
    """Images a second of W replicas over W times those of one."""
    return step_seconds / (step_seconds + communication_seconds)
