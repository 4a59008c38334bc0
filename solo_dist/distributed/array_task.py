"""Which one of many independent tasks this process is: from flags, a Slurm array or an indexed Job of Kubernetes."""

from collections.abc import Mapping

from solo_dist.errors import ConfigError

_INDICES = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")
_COUNT = "SLURM_ARRAY_TASK_COUNT"


def array_task(environ: Mapping[str, str], index: int | None, count: int | None) -> tuple[int, int] | None:
    """Index and count of the tasks; None if neither is given, whatever scheduler this process runs under.

    Args:
      environ: gives the one that is not given.
      index: from 0.
      count: of all tasks. Slurm's own count is that of the tasks that are submitted together, so it is wrong for an
        array in which only some tasks run again; the count should then be given.
    Raises:
      ConfigError: one is given, and the other one is not in the environment.
    """
    if index is None and count is None:
        return None
    if index is None:
        found = next((environ[name] for name in _INDICES if environ.get(name)), None)
        if found is None:
            raise ConfigError(f"--task_count={count} needs --task_index; none of {', '.join(_INDICES)} is set.")
        index = int(found)
    if count is None:
        if not environ.get(_COUNT):
            raise ConfigError(f"--task_index={index} needs --task_count, the number of all tasks; {_COUNT} is not set.")
        count = int(environ[_COUNT])
    return index, count
