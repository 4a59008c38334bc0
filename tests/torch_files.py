"""Writes PyTorch checkpoints without PyTorch, opcode by opcode, in both layouts of the format."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping

import numpy as np
import pytest

# What PyTorch calls the storage of each type; bfloat16 is handed over as its upper 16 bits in uint16.
STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "uint16": "BFloat16Storage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tuple_of(*arguments) + b"R"


def mapping(items: Mapping[str, bytes]) -> bytes:
    ordered = call(name("collections", "OrderedDict"))
    return ordered + b"(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def tensor(key: str, array: np.ndarray, layout: str) -> bytes:
    """A view of the storage `key` that holds the whole base of the array, so that transposed arrays have strides."""
    storage = [text("storage"), name("torch", STORAGES[str(array.dtype)]), text(key), text("cpu"), integer(array.size)]
    if layout == "legacy":
        storage.append(b"N")
    strides = [stride // array.itemsize for stride in array.strides]
    shape, strides_ = (tuple_of(*map(integer, values)) for values in (array.shape, strides))
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        tuple_of(*storage) + b"Q",
        integer(0),
        shape,
        strides_,
        b"\x89",
        call(name("collections", "OrderedDict")),
    )


def flat_bytes(array: np.ndarray) -> bytes:
    """The elements in the order they have in memory."""
    return array.transpose(np.argsort([-stride for stride in array.strides], kind="stable")).tobytes()


def wrap(state: bytes, enclosing: str) -> bytes:
    """The pickle: the state dict alone, or as mmdetection and detectron2 write it."""
    body = state if not enclosing else mapping({"meta": mapping({"epoch": integer(36)}), enclosing: state})
    return b"\x80\x02" + body + b"."


def write_zip(content: bytes, buffers: list[bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        for index, buffer in enumerate(buffers):
            archive.writestr(f"archive/data/{index}", buffer)
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def write_legacy(content: bytes, buffers: list[bytes], sizes: list[int]) -> bytes:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    header = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system)]
    keys = pickle.dumps([str(index) for index in range(len(buffers))], 2)
    storages = [struct.pack("<q", size) + buffer for size, buffer in zip(sizes, buffers, strict=True)]
    return b"".join([*header, content, keys, *storages])


def pth(arrays: Mapping[str, np.ndarray], layout: str = "zip", enclosing: str = "state_dict") -> bytes:
    """A checkpoint with these arrays; layout zip or legacy."""
    tensors = {key: tensor(str(index), array, layout) for index, (key, array) in enumerate(arrays.items())}
    content = wrap(mapping(tensors), enclosing)
    buffers = [flat_bytes(array) for array in arrays.values()]
    if layout == "zip":
        return write_zip(content, buffers)
    return write_legacy(content, buffers, [array.size for array in arrays.values()])


@pytest.fixture(scope="session")
def write_pth() -> Callable[..., bytes]:
    """pth(arrays, layout="zip"|"legacy", enclosing="state_dict"|"model"|"") -> bytes of a PyTorch checkpoint."""
    return pth


@pytest.fixture(scope="session")
def write_hostile_pth() -> Callable[[str, str], bytes]:
    """From a shell command and a layout, a checkpoint whose pickle would run the command."""

    def hostile(command: str, layout: str) -> bytes:
        state = mapping({"weight": call(name("os", "system"), text(command))})
        content = wrap(state, "state_dict")
        return write_zip(content, []) if layout == "zip" else write_legacy(content, [], [])

    return hostile
