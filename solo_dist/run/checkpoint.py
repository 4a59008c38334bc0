"""One checkpoint: a folder with the arrays of a run at a step, verified when it is read.

A checkpoint is a folder `step_00000100/` with two files: `arrays.safetensors` (every array by name) and
`checkpoint.json` (the metadata, and the size and CRC-32C of the arrays). `checkpoint.json` is written last and in one
piece, so a folder without it is a save that never finished, and is not a checkpoint. No folder has to be renamed, which
object stores cannot do. Nothing is pickled.

    save_checkpoint(folder, arrays, CheckpointMetadata(step=100, images=800))
    arrays, metadata = load_checkpoint(folder)
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from solo_dist.errors import DataError, StoreError, StoreUnavailable
from solo_dist.storage import file_io

ARRAYS_FILE = "arrays.safetensors"
COMMIT_FILE = "checkpoint.json"
MODEL, AVERAGE = "model/", "average/"
"""Begin the names of the weights, and of their moving averages if the run keeps any; a variable's path follows."""


class CheckpointError(DataError):
    """A checkpoint that is missing, damaged or of another model; the message names the folder."""


@dataclasses.dataclass(frozen=True)
class CheckpointMetadata:
    """What a checkpoint says about itself. Fields that a checkpoint.json lacks have the defaults."""

    step: int = 0
    """Finished optimizer steps."""
    images: int | None = None
    """Images that the run has trained on, which is its position in the input; None: it cannot be resumed from."""
    seed: int = 0
    categories: list[dict[str, Any]] | None = None
    """{"id", "name"} of each class, in the order of the classes."""
    pixel_range: tuple[float, float] | None = None
    """Values that became black and white in images of more than 8 bits; None: there were none."""
    recipe: str = ""
    """Name of the config."""
    resumed_from: str = ""
    """The checkpoint that the run was started from with --resume=PATH."""
    job: str | None = None
    """The launcher's or scheduler's job that saved it."""
    ap: float | None = None
    """Mask AP on the validation images, in best/ only."""
    ap_images: int = 0
    """Number of images that `ap` was measured on."""
    imported_from: str = ""
    """The weight file that `solo-dist import-weights` made it from."""
    total_steps: int = 0
    """Steps of the whole run if they follow from train.minutes; 0: train.steps says how many there are."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CheckpointMetadata":
        """The fields of a checkpoint.json. Others are left out: checkpoints outlive versions of this program."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {**values, "pixel_range": tuple(values.get("pixel_range") or ()) or None}
        return cls(**{name: value for name, value in values.items() if name in known})


class Checkpoint(NamedTuple):
    """A checkpoint in memory."""

    arrays: dict[str, np.ndarray]
    metadata: CheckpointMetadata


def save_checkpoint(folder: str, arrays: Mapping[str, np.ndarray], metadata: CheckpointMetadata) -> None:
    """Writes one checkpoint folder, the commit file last.

    Raises:
      StoreError: the folder cannot be written (full disk, no permission, a store that does not answer).
    """
    data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    commit = {"file": ARRAYS_FILE, "bytes": len(data), "crc32c": google_crc32c.value(data)}
    commit |= dataclasses.asdict(metadata)
    file_io.remove(f"{folder}/{COMMIT_FILE}")  # first: what is left of an earlier save must not count as a checkpoint
    file_io.remove_folder(folder)
    file_io.write(f"{folder}/{ARRAYS_FILE}", data)
    file_io.write(f"{folder}/{COMMIT_FILE}", json.dumps(commit, indent=1).encode())


def inference_weights(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights to detect with, by variable path: a moving average takes the place of the last weights."""
    weights: dict[str, np.ndarray] = {}
    for prefix in (MODEL, AVERAGE):
        weights |= {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return weights


def load_metadata(folder: str) -> CheckpointMetadata:
    """Reads the metadata of a checkpoint folder. Raises CheckpointError if there is none or it is damaged."""
    return CheckpointMetadata.from_json(_read_commit(folder))


def load_checkpoint(folder: str) -> Checkpoint:
    """Reads and verifies one checkpoint folder.

    Raises:
      CheckpointError: a file is missing, truncated or altered.
      StoreUnavailable: the store does not answer.
    """
    commit = _read_commit(folder)
    try:
        data = _read(f"{folder}/{ARRAYS_FILE}")
    except tf.errors.NotFoundError:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} is missing.") from None
    if len(data) != commit["bytes"]:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} has {len(data)} bytes instead of {commit['bytes']}.")
    if google_crc32c.value(data) != commit["crc32c"]:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} does not have the checksum it was written with.")
    try:
        return Checkpoint(safetensors.numpy.load(data), CheckpointMetadata.from_json(commit))
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{folder}/{ARRAYS_FILE} is not a safetensors file: {error}") from None


def _read_commit(folder: str) -> dict[str, Any]:
    """The content of checkpoint.json. Raises CheckpointError if there is none or it is damaged."""
    try:
        commit = json.loads(_read(f"{folder}/{COMMIT_FILE}"))
    except tf.errors.NotFoundError:
        raise CheckpointError(f"{folder} is not a complete checkpoint: it has no {COMMIT_FILE}.") from None
    except ValueError as error:
        raise CheckpointError(f"{folder}/{COMMIT_FILE} cannot be read: {error}") from None
    if not isinstance(commit, dict) or not {"file", "bytes", "crc32c"} <= set(commit):
        raise CheckpointError(f"{folder}/{COMMIT_FILE} is not a checkpoint's description.")
    return commit


def _read(path: str) -> bytes:
    """Like file_io.read, but a file that cannot be read counts as damaged unless the whole store does not answer."""
    try:
        return file_io.read(path)
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def assign_arrays(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Assigns arrays to variables of the same names; every name and shape has to agree.

    Raises:
      CheckpointError: the arrays are of another model; the message names the first differences.
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
            "Use the config it was trained with, or another workdir."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
