"""Reads PyTorch checkpoints without PyTorch, rebuilding tensors and nothing else.

A `.pth` file is a pickle, and a pickle can call any function it names. Here the unpickler knows a short list of names,
those that tensors are made of, and calls nothing else. Other objects of training programs (meta, message
hub, optimizer) are read as objects that do nothing. Any other name, and such an object in the state dict, is refused.
Both layouts are read: the zip archive (PyTorch 1.6 and later) and the older sequence of pickles and raw storages.
"""

import collections
import io
import math
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from solo_dist.weights.errors import WeightFileError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_KEYS_OF_STATE_DICTS = ("state_dict", "model", "model_state")

_STORAGES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("|i1"),
    "ByteStorage": np.dtype("|u1"),
    "BoolStorage": np.dtype("|b1"),
}


class _Storage(NamedTuple):
    """A flat buffer, by its key in the file."""

    key: str
    dtype: np.dtype
    length: int

    @property
    def size(self) -> int:
        """Its bytes in the file."""
        return self.length * self.dtype.itemsize


class _Tensor(NamedTuple):
    """A view of a storage; sizes and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StorageKind(NamedTuple):
    """Replaces a class such as torch.FloatStorage."""

    dtype: np.dtype


class _Inert:
    """Replaces an object of a training program; nothing that a pickle does with it has an effect."""

    name = ""
    """What the pickle calls it."""

    def __new__(cls, *_: Any, **__: Any) -> "_Inert":
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        pass

    def __call__(self, *_: Any, **__: Any) -> "_Inert":
        return self

    def _ignore(self, *_: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _ignore


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    **{("torch", name): _StorageKind(dtype) for name, dtype in _STORAGES.items()},
}


# Names beside tensors in checkpoints of training programs: the packages of OpenMMLab, numbers and arrays of numpy, and
# `getattr`, by which an old protocol names methods. All of it becomes inert; nothing of these packages is imported.
_INERT = re.compile(r"(mmengine|mmcv|mmdet|numpy)\..*|argparse\.Namespace|(__builtin__|builtins)\.(getattr|set)")


class _TensorUnpickler(pickle.Unpickler):
    """Builds containers, numbers, strings, tensors and inert objects; refuses every other name."""

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The object for a name in the pickle."""
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if _INERT.fullmatch(f"{module}.{name}"):
            return type("_Inert", (_Inert,), {"name": f"{module}.{name}"})
        raise _RefusedError(f"{module}.{name}")

    def persistent_load(self, reference: Any) -> _Storage:
        """A storage, from its tuple ("storage", kind, key, device, count, ...)."""
        if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
            raise pickle.UnpicklingError("a persistent object that is no storage")
        _, kind, key, _, count = reference[:5]
        if len(reference) > 5 and reference[5] is not None:
            raise pickle.UnpicklingError("a view of a storage, as only very old versions of PyTorch wrote")
        if not isinstance(kind, _StorageKind):
            raise pickle.UnpicklingError("a storage of unknown type")
        return self.storages.setdefault(str(key), _Storage(str(key), kind.dtype, int(count)))


class _RefusedError(pickle.UnpicklingError):
    """A name that no tensor needs."""


def read_torch(data: bytes, source: str) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch checkpoint, by their names in the state dict.

    Args:
      data: content of the file.
      source: name of the file for errors.

    Raises:
      WeightFileError: the file is truncated, is no PyTorch checkpoint, has no state dict, or holds refused names.
    """
    try:
        content, buffers = _read_zip(data) if data[:2] == b"PK" else _read_legacy(data)
        tensors = dict(_named_tensors(content))
        if not tensors:
            raise WeightFileError(f"{source} holds no tensors by name, so it is no state dict of a model.")
        return {name: _materialise(tensor, buffers) for name, tensor in tensors.items()}
    except _RefusedError as error:
        raise WeightFileError(
            f"{source} is refused: its pickle asks for {error}, which is code and not a tensor. "
            "Save the model's state_dict() alone, or as .safetensors."
        ) from None
    except WeightFileError:
        raise
    except Exception as error:  # pickle, zipfile and numpy fail in many ways on damaged input
        reason = str(error) or type(error).__name__
        raise WeightFileError(f"{source} is truncated or not a PyTorch checkpoint ({reason}).") from None


def _read_zip(data: bytes) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise pickle.UnpicklingError("no data.pkl in the archive")
        root = pickles[0][: -len("data.pkl")]
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise pickle.UnpicklingError("big-endian tensors")
        content = _TensorUnpickler(io.BytesIO(archive.read(pickles[0]))).load()
        prefix = f"{root}data/"
        names = [name for name in archive.namelist() if name.startswith(prefix)]
        return content, {name[len(prefix) :]: archive.read(name) for name in names}


def _read_legacy(data: bytes) -> tuple[Any, dict[str, bytes]]:
    stream = io.BytesIO(data)
    magic = _TensorUnpickler(stream).load()
    _refuse_inert(magic)
    if magic != _LEGACY_MAGIC:
        raise pickle.UnpicklingError("no magic number")
    if _TensorUnpickler(stream).load() != _LEGACY_PROTOCOL:
        raise pickle.UnpicklingError("unknown version of the format")
    if not _TensorUnpickler(stream).load().get("little_endian", False):
        raise pickle.UnpicklingError("big-endian tensors")
    unpickler = _TensorUnpickler(stream)
    content = unpickler.load()
    buffers = {}
    for key in _TensorUnpickler(stream).load():
        storage = unpickler.storages[key]
        if stream.read(8) != storage.length.to_bytes(8, "little"):
            raise pickle.UnpicklingError(f"no storage {key}")
        buffers[key] = stream.read(storage.size)
    return content, buffers


def _named_tensors(content: Any) -> Iterator[tuple[str, _Tensor]]:
    """Tensors of the state dict, which stands alone or under one of the customary keys."""
    _refuse_inert(content)
    if not isinstance(content, Mapping):
        return
    content = next((content[key] for key in _KEYS_OF_STATE_DICTS if isinstance(content.get(key), Mapping)), content)
    for name, value in content.items():
        _refuse_inert(value)
        if isinstance(name, str) and isinstance(value, _Tensor):
            yield name.removeprefix("module."), value  # the prefix of DataParallel


def _refuse_inert(value: Any) -> None:
    if isinstance(value, _Inert) or (isinstance(value, type) and issubclass(value, _Inert)):
        raise _RefusedError(value.name)


def _materialise(tensor: _Tensor, buffers: Mapping[str, bytes]) -> np.ndarray:
    """A contiguous array of its own, after checking that the view lies within its storage."""
    storage, shape = tensor.storage, tensor.shape
    data = buffers.get(storage.key, b"")
    if len(data) != storage.size:
        raise pickle.UnpicklingError(f"storage {storage.key} has {len(data)} bytes")
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, tensor.strides, strict=True))
    count = math.prod(int(size) for size in shape)
    negative = min((tensor.offset, *shape, *tensor.strides)) < 0
    if negative or count > storage.length or (count and last >= storage.length):
        raise pickle.UnpicklingError("a tensor beyond its storage")
    flat = np.frombuffer(data, storage.dtype)[tensor.offset :]
    strides = [stride * flat.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False)
    if storage.dtype == ml_dtypes.bfloat16:
        view = view.astype(np.float32)
    return np.ascontiguousarray(view).reshape(shape)
