"""Which checkpoint is the best of a run.

    best = BestCheckpoint(RunDirectory(workdir).best())
    best.offer(arrays, dataclasses.replace(metadata, ap=0.31, ap_images=5000))

It is in the folder best/ of the run directory.
"""

import logging
from collections.abc import Mapping

import numpy as np

from solo_dist.run.checkpoint import CheckpointMetadata
from solo_dist.run.checkpoint_store import CheckpointStore

log = logging.getLogger(__name__)

PATIENCE = 3
"""Evaluations in a row without a better AP after which the log says so."""


class BestCheckpoint:
    """The checkpoint with the highest validation mask AP.

    An AP measured on more images replaces one measured on fewer, even if it is lower: only APs of equally many images
    can be compared.
    """

    def __init__(self, store: CheckpointStore):
        """Takes the store that holds the best checkpoint so far, if there is one."""
        self.folder, self._store = store.folder, store

    @property
    def metadata(self) -> CheckpointMetadata | None:
        """Metadata of the best checkpoint so far; None before the first evaluation."""
        return self._store.newest_metadata()

    def offer(self, arrays: Mapping[str, np.ndarray], metadata: CheckpointMetadata) -> None:
        """Saves a checkpoint if its `ap` is better than that of the saved one; returns when it is written.

        An AP below 0 means that there were no instances to find; it is never the best. Raises StoreError.
        """
        if is_better(metadata, self.metadata):
            self._store.save(arrays, metadata)
            self._store.wait()

    def standing(self, step: int) -> str:
        """What the line of the evaluation at `step` says about the best AP so far; empty if there is none."""
        best = self.metadata
        if best is None:
            return ""
        return "best so far" if best.step == step else f"best so far {best.ap:.3f} at step {best.step}"

    def remark(self, step: int, eval_every: int) -> None:
        """Logs that the AP has not risen for a while, if that is so after the evaluation at `step`."""
        best = self.metadata
        if best is not None and 0 < PATIENCE * eval_every <= step - best.step:
            log.info(
                "no better AP since step %d (%.3f): more steps may not help. `solo-dist report` shows what is missed.",
                best.step,
                best.ap,
            )


def is_better(new: CheckpointMetadata, best: CheckpointMetadata | None) -> bool:
    """Whether `new` takes the place of `best`."""
    if new.ap is None or new.ap < 0:
        return False
    if best is None or best.ap is None:
        return True
    return (new.ap_images, new.ap) > (best.ap_images, best.ap)
