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
from collections.abc import Mapping
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from solo_dist.config import ConfigError
from solo_dist.runtime import launcher

ARRAYS_FILE = "arrays.safetensors"
COMMIT_FILE = "checkpoint.json"
_STEP_FOLDER = re.compile(r"^step_(\d{8,})$")

log = logging.getLogger(__name__)


class CheckpointError(ConfigError):
    """A checkpoint that is missing, damaged or of another model; the message names the folder."""


class Checkpoint(NamedTuple):
    """A checkpoint read back: its step, its arrays by name, and what was stored beside them."""

    step: int
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


def write_atomically(path: str, data: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new one, never a part.

    Object stores publish an object when it is closed; a file system needs a temporary name and a rename.
    """
    if "://" in path:
        with tf.io.gfile.GFile(path, "wb") as file:
            file.write(data)
        return
    temporary = f"{path}.tmp"
    with tf.io.gfile.GFile(temporary, "wb") as file:
        file.write(data)
    tf.io.gfile.rename(temporary, path, overwrite=True)


def save_arrays(folder: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Writes one checkpoint folder, the commit file last.

    Raises:
      CheckpointError: where the folder cannot be written (full disk, no permission).
    """
    data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    commit = {"file": ARRAYS_FILE, "bytes": len(data), "crc32c": google_crc32c.value(data), **metadata}
    try:
        if tf.io.gfile.exists(folder):
            tf.io.gfile.rmtree(folder)
        tf.io.gfile.makedirs(folder)
        write_atomically(f"{folder}/{ARRAYS_FILE}", data)
        write_atomically(f"{folder}/{COMMIT_FILE}", json.dumps(commit, indent=1).encode())
    except (tf.errors.OpError, OSError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise CheckpointError(
            f"The checkpoint {folder} could not be written: {reason}. Earlier checkpoints are untouched; "
            "make room or permissions, then run the same command to go on from the last one."
        ) from error


def load_metadata(folder: str) -> dict[str, Any]:
    """Reads the commit file of a checkpoint folder. Raises CheckpointError where there is none or it is damaged."""
    try:
        with tf.io.gfile.GFile(f"{folder}/{COMMIT_FILE}", "rb") as file:
            metadata = json.loads(file.read())
    except tf.errors.NotFoundError:
        raise CheckpointError(f"{folder} is not a complete checkpoint: it has no {COMMIT_FILE}.") from None
    except (ValueError, tf.errors.OpError) as error:
        raise CheckpointError(f"{folder}/{COMMIT_FILE} cannot be read: {error}") from None
    if not isinstance(metadata, dict) or not {"file", "bytes", "crc32c"} <= set(metadata):
        raise CheckpointError(f"{folder}/{COMMIT_FILE} is not a checkpoint's description.")
    return metadata


def load_arrays(folder: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads and verifies one checkpoint folder.

    Returns:
      The arrays by name, and the metadata.
    Raises:
      CheckpointError: where a file is missing, truncated or altered.
    """
    metadata = load_metadata(folder)
    try:
        with tf.io.gfile.GFile(f"{folder}/{ARRAYS_FILE}", "rb") as file:
            data = file.read()
    except tf.errors.OpError as error:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} cannot be read: {error.message}") from None
    if len(data) != metadata["bytes"]:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} has {len(data)} bytes instead of {metadata['bytes']}.")
    if google_crc32c.value(data) != metadata["crc32c"]:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} does not have the checksum it was written with.")
    try:
        return safetensors.numpy.load(data), metadata
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} is not a safetensors file: {error}") from None


class CheckpointStore:
    """The checkpoints of one run in one folder: saved behind the training, pruned, found and verified."""

    def __init__(self, folder: str, keep: int = 3):
        self.folder = folder.rstrip("/")
        self.keep = keep
        self._writer: threading.Thread | None = None
        self._error: Exception | None = None

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Lets a save that has begun come to its end, whatever ended the training."""
        if self._writer is not None:
            self._writer.join()

    def path(self, step: int) -> str:
        """Folder of the checkpoint of a step."""
        return f"{self.folder}/step_{step:08d}"

    def steps(self) -> list[int]:
        """Steps with a committed checkpoint, ascending."""
        if not tf.io.gfile.isdir(self.folder):
            return []
        found = (_STEP_FOLDER.match(name.rstrip("/")) for name in tf.io.gfile.listdir(self.folder))
        steps = sorted(int(match.group(1)) for match in found if match)
        return [step for step in steps if tf.io.gfile.exists(f"{self.path(step)}/{COMMIT_FILE}")]

    def save(self, step: int, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        """Writes a checkpoint in a thread of its own; waits first for the one before it.

        Raises:
          CheckpointError: of the save before this one, where that failed.
        """
        self.wait()
        self._writer = threading.Thread(target=self._write, args=(step, arrays, metadata), name="checkpoint-writer")
        self._writer.start()

    def wait(self) -> None:
        """Returns when nothing is being written. Raises what the writing thread met."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, step: int, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        try:
            save_arrays(self.path(step), arrays, {"step": step, **metadata})
            launcher.report_progress(step)
            self._prune()
        except Exception as error:  # handed to the training thread by wait()
            self._error = error

    def _prune(self) -> None:
        for step in self.steps()[: -self.keep]:
            # Without its commit file a folder is no checkpoint, so an interrupted removal leaves nothing half valid.
            tf.io.gfile.remove(f"{self.path(step)}/{COMMIT_FILE}")
            tf.io.gfile.rmtree(self.path(step))

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
    if which not in ("latest", "best"):
        load_metadata(which)
        return which.rstrip("/")
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
