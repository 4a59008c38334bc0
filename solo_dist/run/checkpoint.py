"""What a checkpoint is, when it counts as written, and how it is found, verified and restored.

A checkpoint is a folder `step_00000100/` with two files: `arrays.safetensors` (every array by name) and
`checkpoint.json` (step, metadata, and the size and CRC-32C of the arrays). The second is written last and in one
piece, so a folder without it is a save that never finished and is never taken for a checkpoint. No rename of a folder
is needed, which object stores do not have. Nothing is pickled.

    store = CheckpointStore(f"{workdir}/checkpoints", keep=3)
    store.save(100, arrays, {"images": 800})       # returns at once; the writing happens behind
    step, arrays, metadata = store.restore_latest()
"""

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from solo_dist.distributed import exit_codes
from solo_dist.errors import DataError, StoreError, StoreUnavailable
from solo_dist.storage import file_io

ARRAYS_FILE = "arrays.safetensors"
COMMIT_FILE = "checkpoint.json"
_STEP_FOLDER = re.compile(r"^step_(\d{8,})$")

log = logging.getLogger(__name__)


class CheckpointError(DataError):
    """A checkpoint that is missing, damaged or of another model; the message names the folder."""


class Checkpoint(NamedTuple):
    """A checkpoint read back: its step, its arrays by name, and what was stored beside them."""

    step: int
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


def save_arrays(folder: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Writes one checkpoint folder, the commit file last.

    Raises:
      StoreError: where the folder cannot be written (full disk, no permission, a store that does not answer).
    """
    data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    commit = {"file": ARRAYS_FILE, "bytes": len(data), "crc32c": google_crc32c.value(data), **metadata}
    file_io.remove(f"{folder}/{COMMIT_FILE}")  # first, so that the remains of an earlier save are no checkpoint
    file_io.remove_folder(folder)
    file_io.write(f"{folder}/{ARRAYS_FILE}", data)
    file_io.write(f"{folder}/{COMMIT_FILE}", json.dumps(commit, indent=1).encode())


def load_metadata(folder: str) -> dict[str, Any]:
    """Reads the commit file of a checkpoint folder. Raises CheckpointError where there is none or it is damaged."""
    try:
        metadata = json.loads(_read(f"{folder}/{COMMIT_FILE}"))
    except tf.errors.NotFoundError:
        raise CheckpointError(f"{folder} is not a complete checkpoint: it has no {COMMIT_FILE}.") from None
    except ValueError as error:
        raise CheckpointError(f"{folder}/{COMMIT_FILE} cannot be read: {error}") from None
    if not isinstance(metadata, dict) or not {"file", "bytes", "crc32c"} <= set(metadata):
        raise CheckpointError(f"{folder}/{COMMIT_FILE} is not a checkpoint's description.")
    return metadata


def _read(path: str) -> bytes:
    """As storage.read; but a file that cannot be read is damaged, unless its store as a whole does not answer."""
    try:
        return file_io.read(path)
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def load_arrays(folder: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads and verifies one checkpoint folder.

    Returns:
      The arrays by name, and the metadata.
    Raises:
      CheckpointError: where a file is missing, truncated or altered.
      StoreUnavailable: where the store does not answer.
    """
    metadata = load_metadata(folder)
    try:
        data = _read(f"{folder}/{ARRAYS_FILE}")
    except tf.errors.NotFoundError:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} is missing.") from None
    if len(data) != metadata["bytes"]:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} has {len(data)} bytes instead of {metadata['bytes']}.")
    if google_crc32c.value(data) != metadata["crc32c"]:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} does not have the checksum it was written with.")
    try:
        return safetensors.numpy.load(data), metadata
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} is not a safetensors file: {error}") from None


class CheckpointStore:
    """The checkpoints of one run in one folder: saved behind the training, pruned, found and verified.

    Args:
      folder: where they are.
      keep: how many.
      copy: a local folder for the newest two, written first, where `folder` is in an object store.
    """

    def __init__(self, folder: str, keep: int = 3, copy: str = ""):
        self.folder = folder.rstrip("/")
        self.keep = keep
        # Two: a run that goes on from its copy needs it until a newer checkpoint is in `folder`.
        self._copy = CheckpointStore(copy, keep=2) if copy else None
        self._writer: threading.Thread | None = None
        self._error: Exception | None = None

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Lets a save that has begun come to its end, whatever ended the training; says where its local copy is."""
        self._join()
        steps = self._copy.steps() if self._copy else []
        if self._copy and steps and isinstance(error, StoreError):
            raise type(error)(
                f"{error} The checkpoint of step {steps[-1]} is kept on this machine; "
                f"the same command with --resume={self._copy.path(steps[-1])} goes on from it."
            ) from error

    def path(self, step: int) -> str:
        """Folder of the checkpoint of a step."""
        return f"{self.folder}/step_{step:08d}"

    def steps(self) -> list[int]:
        """Steps with a committed checkpoint, ascending."""
        return [step for step in self._begun() if file_io.exists(f"{self.path(step)}/{COMMIT_FILE}")]

    def _begun(self) -> list[int]:
        """Steps of all folders, of saves that never ended too, ascending."""
        found = (_STEP_FOLDER.match(name) for name in file_io.names(self.folder))
        return sorted(int(match.group(1)) for match in found if match)

    def save(
        self,
        step: int,
        arrays: Mapping[str, np.ndarray],
        metadata: Mapping[str, Any],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Writes a checkpoint in a thread of its own, which calls `before` first; waits for the one before it.

        Raises:
          StoreError: of the save before this one, where that failed.
        """
        self._join()
        if self._error is None:
            arguments = (step, arrays, {"step": step, **metadata}, before)
            self._writer = threading.Thread(target=self._write, args=arguments, name="checkpoint-writer")
            self._writer.start()
        elif self._copy:
            self._copy._save_now(step, arrays, {"step": step, **metadata})
        self._raise()

    def wait(self) -> None:
        """Returns when nothing is being written. Raises what the writing thread met."""
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
        self, step: int, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any], before: Callable[[], None]
    ) -> None:
        try:
            if self._copy:
                self._copy._save_now(step, arrays, metadata)
            before()
            self._save_now(step, arrays, metadata)
            exit_codes.report_progress(step)
        except StoreError as error:
            self._error = type(error)(f"The checkpoint of step {step} could not be written. {error}")
        except Exception as error:  # handed to the training thread by wait()
            self._error = error

    def _save_now(self, step: int, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        save_arrays(self.path(step), arrays, metadata)
        others = [other for other in self.steps() if other != step]
        kept = {step, *others[max(0, len(others) + 1 - self.keep) :]}
        for old in set(self._begun()) - kept:
            # Without its commit file a folder is no checkpoint, so an interrupted removal leaves nothing half valid.
            file_io.remove(f"{self.path(old)}/{COMMIT_FILE}")
            file_io.remove_folder(self.path(old))

    def newest_metadata(self) -> dict[str, Any]:
        """Of the newest checkpoint whose metadata can be read; empty where there is none."""
        for step in reversed(self.steps()):
            try:
                return load_metadata(self.path(step))
            except CheckpointError as error:
                log.warning("Damaged checkpoint passed over: %s", error)
        return {}

    def restore_latest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies; damaged ones are passed over with a warning.

        Returns:
          None where the folder holds no checkpoint at all.
        Raises:
          CheckpointError: where there are checkpoints and every one is damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                arrays, metadata = load_arrays(self.path(step))
                return Checkpoint(step, arrays, metadata)
            except CheckpointError as error:
                log.warning("Damaged checkpoint passed over: %s", error)
        if steps:
            raise CheckpointError(
                f"None of the {len(steps)} checkpoints in {self.folder} can be read; see the warnings."
            )
        return None


def find_checkpoint(workdir: str, which: str) -> str:
    """Folder of a checkpoint of a run.

    Args:
      workdir: the run directory.
      which: 'latest', 'best', or the path of a checkpoint folder.
    Raises:
      CheckpointError: where there is no such checkpoint.
    """
    workdir, which = workdir.rstrip("/"), which.rstrip("/")
    if which not in ("latest", "best"):
        load_metadata(which)
        return which
    store = CheckpointStore(f"{workdir}/{'checkpoints' if which == 'latest' else 'best'}")
    steps = store.steps()
    if not steps:
        hint = "train first" if which == "latest" else "the best one appears with the first evaluation; try latest"
        raise CheckpointError(f"{store.folder} holds no complete checkpoint ({hint}, or give --checkpoint=PATH).")
    return store.path(steps[-1])


def assign_arrays(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Assigns arrays to variables of the same names; every name and shape has to agree.

    Raises:
      CheckpointError: naming the first differences, where the arrays are of another model.
    """
    missing = sorted(set(variables) - set(arrays))
    surplus = sorted(set(arrays) - set(variables))
    shapes = [
        f"{name} is {tuple(arrays[name].shape)} there and {tuple(variables[name].shape)} here"
        for name in sorted(set(variables) & set(arrays))
        if tuple(arrays[name].shape) != tuple(variables[name].shape)
    ]
    if missing or surplus or shapes:
        details = [f"{len(missing)} arrays missing ({', '.join(missing[:3])})"] if missing else []
        details += [f"{len(surplus)} arrays too many ({', '.join(surplus[:3])})"] if surplus else []
        details += [f"{len(shapes)} of another shape ({'; '.join(shapes[:2])})"] if shapes else []
        raise CheckpointError(
            f"{source} is of another architecture: {'; '.join(details)}. "
            "Use the recipe it was trained with, or another workdir."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
