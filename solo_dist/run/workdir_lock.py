"""The lease on a workdir, so that two jobs never write into one.

with WorkdirLock(workdir):      # in the chief only; LockError if another job holds it
    train()
"""

import os

from solo_dist.distributed.exit_codes import EXIT_USER_ERROR
from solo_dist.distributed.job import job_id
from solo_dist.storage.lease import HEARTBEAT_SECONDS, Lease, Words


class WorkdirLock(Lease):
    """The lease of the file workdir/lock.json; a restart of the same job takes it over at once."""

    def __init__(self, workdir: str, heartbeat_seconds: float = HEARTBEAT_SECONDS):
        """Takes the workdir and the time between renewals.

        If another job has taken the lease, this process ends at once, before it can write over the other's files.
        """
        words = Words(f"--workdir={workdir}", "Stop that job or choose another --workdir")

        def leave() -> None:
            os._exit(EXIT_USER_ERROR)

        super().__init__(f"{workdir}/lock.json", words, leave, job_id(os.environ), heartbeat_seconds)
