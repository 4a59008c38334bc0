"""Claims of tasks on their shards, so that two machines do not make the same ones.

Task i of n makes the shards i, i + n, i + 2n and so on. Planning, finishing and sharding in one command claim all
shards, as task 0 of 1.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from solo_dist.data.sharding.plan import progress_folder
from solo_dist.distributed.exit_codes import EXIT_PEER_LOST, exit_now
from solo_dist.distributed.job import job_id
from solo_dist.storage import file_io
from solo_dist.storage.lease import Lease, Words

_NAME = re.compile(r"task-(\d+)-of-(\d+)\.lock\.json")


@contextlib.contextmanager
def claimed(output: str, index: int = 0, count: int = 1) -> Iterator[None]:
    """Holds the claim of a task, or of all shards.

    Raises:
      LockError: another process is at work on some of the same shards. StoreError: the output cannot be written.
    """
    with _lease(output, index, count):
        others = [
            (int(found[1]), int(found[2]))
            for found in map(_NAME.fullmatch, file_io.names(progress_folder(output)))
            if found
        ]
        shared = [other for other in others if other != (index, count) and _overlap(other, (index, count))]
        with ThreadPoolExecutor(max(1, len(shared))) as pool:  # each may have to be watched for some heartbeats
            list(pool.map(lambda other: _lease(output, *other).check_free(), shared))
        yield


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two tasks, (index, count) each, have shards in common."""
    return (one[0] - other[0]) % math.gcd(one[1], other[1]) == 0


def _lease(output: str, index: int, count: int) -> Lease:
    what = output if count == 1 else f"task {index} of {count} of {output}"
    # Leaves with the code for a lost peer, so that launchers start this task again, in case the other one fails.
    return Lease(
        f"{progress_folder(output)}/task-{index:05d}-of-{count:05d}.lock.json",
        Words(what, "Wait for it, or stop it"),
        lambda: exit_now(EXIT_PEER_LOST),
        job_id(os.environ),
    )
