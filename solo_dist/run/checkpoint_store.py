"""The checkpoints of a run: saved in the background, pruned, found, and loaded.

    with CheckpointStore(f"{workdir}/checkpoints", keep=3) as store:
        store.save(arrays, CheckpointMetadata(step=100, images=800))       # returns at once
    arrays, metadata = store.load_latest()

A save that fails raises its error at the next `save` or `wait`.
"""

import logging
import re
import threading
from collections.abc import Callable, Mapping

import numpy as np

from solo_dist.distributed.job import report_progress
from solo_dist.errors import StoreError
from solo_dist.run.checkpoint import (
    COMMIT_FILE,
    Checkpoint,
    CheckpointError,
    CheckpointMetadata,
    load_checkpoint,
    load_metadata,
    save_checkpoint,
)
from solo_dist.storage import file_io

_STEP_FOLDER = re.compile(r"^step_(\d{8,})$")

log = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of one run in one folder.

    Args:
      folder: the folder of the checkpoints.
      keep: number of newest checkpoints to keep.
      copy: a local folder for copies of the newest two, written first, if `folder` is in an object store.
    """

    def __init__(self, folder: str, keep: int = 3, copy: str = ""):
        self.folder = folder.rstrip("/")
        self.keep = keep
        # Two: a run that resumes from its local copy needs that copy until a newer checkpoint is in `folder`.
        self._copy = CheckpointStore(copy, keep=2) if copy else None
        self._writer: threading.Thread | None = None
        self._error: Exception | None = None

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Waits for a save in progress, however the training ended; adds the local copy to the text of a StoreError."""
        self._join()
        steps = self._copy.steps() if self._copy else []
        if self._copy and steps and isinstance(error, StoreError):
            raise type(error)(
                f"{error} The checkpoint of step {steps[-1]} is kept on this machine; "
                f"the same command with --resume={self._copy.path(steps[-1])} continues from it."
            ) from error

    def path(self, step: int) -> str:
        """Folder of the checkpoint of a step."""
        return f"{self.folder}/step_{step:08d}"

    def steps(self) -> list[int]:
        """Steps with a committed checkpoint, ascending."""
        return [step for step in self._begun() if file_io.exists(f"{self.path(step)}/{COMMIT_FILE}")]

    def _begun(self) -> list[int]:
        """Steps of all folders, including those of unfinished saves, ascending."""
        found = (_STEP_FOLDER.match(name) for name in file_io.names(self.folder))
        return sorted(int(match.group(1)) for match in found if match)

    def save(
        self,
        arrays: Mapping[str, np.ndarray],
        metadata: CheckpointMetadata,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Writes a checkpoint in a thread, which first calls `before`. Waits for the previous save to finish.

        Raises:
          StoreError: the previous save failed.
        """
        self._join()
        if self._error is None:
            self._writer = threading.Thread(
                target=self._write, args=(arrays, metadata, before), name="checkpoint-writer"
            )
            self._writer.start()
        elif self._copy:
            self._copy._save_now(arrays, metadata)
        self._raise()

    def wait(self) -> None:
        """Returns when nothing is being written. Raises the error of the last save, if it failed."""
        self._join()
        self._raise()

    def _join(self) -> None:
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def _raise(self) -> None:
        if self._writer is None and self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(
        self, arrays: Mapping[str, np.ndarray], metadata: CheckpointMetadata, before: Callable[[], None]
    ) -> None:
        try:
            if self._copy:
                self._copy._save_now(arrays, metadata)
            before()
            self._save_now(arrays, metadata)
            report_progress(metadata.step)
        except StoreError as error:
            self._error = type(error)(f"The checkpoint of step {metadata.step} could not be written. {error}")
        except Exception as error:  # raised in the training thread by `wait`
            self._error = error

    def _save_now(self, arrays: Mapping[str, np.ndarray], metadata: CheckpointMetadata) -> None:
        save_checkpoint(self.path(metadata.step), arrays, metadata)
        others = [other for other in self.steps() if other != metadata.step]
        kept = {metadata.step, *others[max(0, len(others) + 1 - self.keep) :]}
        for old in set(self._begun()) - kept:
            # A folder without its commit file is no checkpoint, so an interrupted removal leaves no damaged one.
            file_io.remove(f"{self.path(old)}/{COMMIT_FILE}")
            file_io.remove_folder(self.path(old))

    def newest_metadata(self) -> CheckpointMetadata | None:
        """Metadata of the newest checkpoint whose metadata can be read; None if there is none."""
        for step in reversed(self.steps()):
            try:
                return load_metadata(self.path(step))
            except CheckpointError as error:
                log.warning("Damaged checkpoint skipped: %s", error)
        return None

    def load_latest(self) -> Checkpoint | None:
        """The newest undamaged checkpoint; damaged ones are skipped with a warning.

        Returns:
          None if the folder holds no checkpoint at all.
        Raises:
          CheckpointError: there are checkpoints, and every one is damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return load_checkpoint(self.path(step))
            except CheckpointError as error:
                log.warning("Damaged checkpoint skipped: %s", error)
        if steps:
            raise CheckpointError(
                f"None of the {len(steps)} checkpoints in {self.folder} can be read; see the warnings."
            )
        return None
