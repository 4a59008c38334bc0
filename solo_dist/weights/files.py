"""Reading arrays by name from any kind of weight file: our checkpoints, PyTorch, safetensors, Keras."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import safetensors
import tensorflow as tf

from solo_dist.run.checkpoint import COMMIT_FILE, load_checkpoint
from solo_dist.storage import file_io
from solo_dist.weights import published
from solo_dist.weights.errors import WeightFileError
from solo_dist.weights.names import keras_names
from solo_dist.weights.torch_reader import read_torch

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_SAFETENSORS_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,  # unknown to safetensors' own reader for numpy
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_weights(path: str) -> dict[str, np.ndarray]:
    """Reads every array of a weight file, by its name in the file.

    Args:
      path: a folder with a checkpoint of ours, .pth or .pt, .safetensors, .h5 or .keras, on a disk or in a store; the
        name of a published model (mmdet:NAME); or an http(s) URL whose file name ends in the digits of its SHA-256.
        Keras and PyTorch files are recognised by their content, safetensors by the suffix .safetensors. Arrays of
        Keras files are named "layer/index", with the index of the weight in its layer.

    Raises:
      WeightFileError: the file is missing, damaged, refused, or of another kind.
      CheckpointError: a checkpoint of ours is damaged.
      WeightsError: the file cannot be downloaded.
    """
    path = published.local_path(path).rstrip("/")
    if file_io.exists(f"{path}/{COMMIT_FILE}"):
        return load_checkpoint(path)[0]
    if tf.io.gfile.isdir(path) or file_io.names(path):
        raise WeightFileError(f"{path} is a folder without {COMMIT_FILE}: give a step_... folder or a weight file.")
    try:
        data = file_io.read(path)
    except tf.errors.NotFoundError:
        raise WeightFileError(f"The weights {path} cannot be read: there is no such file.") from None
    if data.startswith(_HDF5_MAGIC):
        return _read_keras(data, path)
    if data.startswith(b"PK") and _is_keras_archive(data):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_keras(archive.read("model.weights.h5"), path)
    if path.endswith(".safetensors"):
        return _read_safetensors(data, path)
    return read_torch(data, path)


def _is_keras_archive(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return "model.weights.h5" in archive.namelist()
    except zipfile.BadZipFile:  # truncated: read_torch says so
        return False


def _read_safetensors(data: bytes, source: str) -> dict[str, np.ndarray]:
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise WeightFileError(f"{source} is truncated or not a safetensors file ({error}).") from None
    return {name: _safetensor(name, entry, source) for name, entry in entries}


def _safetensor(name: str, entry: Mapping[str, Any], source: str) -> np.ndarray:
    if entry["dtype"] not in _SAFETENSORS_TYPES:
        raise WeightFileError(f"{source}: {name} is of type {entry['dtype']}; save it as F32, F16 or BF16.")
    array = np.frombuffer(entry["data"], _SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"])
    return array.astype(np.float32) if entry["dtype"] == "BF16" else array


def _read_keras(data: bytes, source: str) -> dict[str, np.ndarray]:
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            arrays = dict(_named_arrays(file))
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise WeightFileError(f"{source} is truncated or not a Keras weight file ({error}).") from None
    if not arrays:
        raise WeightFileError(
            f"{source} does not name its layers, as files of Keras 3.0 to 3.5 did not; "
            "load it with that version and save it as .h5."
        )
    return arrays


def _named_arrays(file: h5py.File) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays named "layer/index", from either layout of HDF5 files that Keras writes."""
    old = file.get("model_weights", file)
    if "layer_names" in old.attrs:
        for outer in old.attrs["layer_names"]:
            group = old[_text(outer)]
            paths = [_text(path) for path in group.attrs["weight_names"]]
            for name, path in zip(keras_names(paths), paths, strict=True):
                yield name, group[path][()]
        return
    groups: list[h5py.Group] = []
    file.visititems(lambda path, item: groups.append(item) if path.endswith("/vars") else None)
    for group in groups:
        if "name" in group.attrs:
            for index in group:
                yield f"{_text(group.attrs['name'])}/{index}", group[index][()]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
