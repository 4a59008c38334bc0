"""PyTorch checkpoints, written by hand in both layouts, read without PyTorch."""

import pickle

import numpy as np
import pytest

from solo_dist.weights.errors import WeightFileError
from solo_dist.weights.torch_reader import read_torch
from tests import torch_files

LAYOUTS = pytest.mark.parametrize("layout", ["zip", "legacy"])


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "conv.weight": generator.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "transposed": generator.normal(size=(5, 7)).astype(np.float32).T,
        "double": generator.normal(size=6),
        "half": generator.normal(size=(2, 3)).astype(np.float16),
        "counter": np.array(17, np.int64),
        "flags": np.array([True, False, True]),
        "empty": np.zeros([0, 3], np.float32),
    }


@LAYOUTS
@pytest.mark.parametrize("enclosing", ["", "state_dict", "model"])
def test_every_type_and_stride_comes_back(write_pth, layout, enclosing):
    expected = arrays()
    actual = read_torch(write_pth(expected, layout, enclosing), "file")
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype and actual[name].shape == array.shape
        np.testing.assert_array_equal(actual[name], array)


@LAYOUTS
def test_bfloat16_is_widened(write_pth, layout):
    exact = np.array([1.5, -2.0, 0.15625, 3e38], np.float32)
    upper = (exact.view(np.uint32) >> 16).astype(np.uint16)
    actual = read_torch(write_pth({"x": upper}, layout), "file")["x"]
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, exact, rtol=2**-8)
    assert actual[0] == 1.5


def training_checkpoint(layout: str, also_in_state_dict: bool = False) -> bytes:
    """As mmengine saves one: a message hub, numpy scalars and an optimizer beside the state dict."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    buffer_class = torch_files.name("mmengine.logging.history_buffer", "HistoryBuffer")
    method = torch_files.call(torch_files.name("__builtin__", "getattr"), buffer_class, torch_files.text("min"))
    history = torch_files.call(torch_files.name("numpy.core.multiarray", "_reconstruct"), torch_files.integer(0))
    hub = (
        b"("
        + buffer_class
        + b"o}"
        + b"("
        + torch_files.text("min")
        + method
        + torch_files.text("log")
        + history
        + b"ub"
    )
    state = torch_files.mapping(
        {"a": torch_files.tensor("0", array, layout)} | ({"b": hub} if also_in_state_dict else {})
    )
    moments = torch_files.mapping({"exp_avg": torch_files.tensor("1", array + 1, layout)})
    content = torch_files.mapping({"message_hub": hub, "optimizer": moments, "state_dict": state})
    pickled = b"\x80\x02" + content + b"."
    buffers = [array.tobytes(), (array + 1).tobytes()]
    return (
        torch_files.write_zip(pickled, buffers)
        if layout == "zip"
        else torch_files.write_legacy(pickled, buffers, [6, 6])
    )


@LAYOUTS
def test_what_training_programs_keep_beside_the_weights_is_ignored(layout):
    found = read_torch(training_checkpoint(layout), "file")
    assert list(found) == ["a"]
    np.testing.assert_array_equal(found["a"], [[0, 1, 2], [3, 4, 5]])


@LAYOUTS
def test_an_object_in_the_state_dict_is_refused(layout):
    with pytest.raises(WeightFileError, match="is refused.*mmengine.logging.history_buffer.HistoryBuffer"):
        read_torch(training_checkpoint(layout, also_in_state_dict=True), "file")


def test_prefix_of_data_parallel_is_dropped(write_pth):
    assert list(read_torch(write_pth({"module.a": np.ones(1, np.float32)}), "file")) == ["a"]


@LAYOUTS
def test_code_is_refused_and_does_not_run(write_hostile_pth, tmp_path, layout):
    witness = tmp_path / "ran"
    data = write_hostile_pth(f"touch {witness}", layout)
    with pytest.raises(WeightFileError, match=r"weights.pth is refused.*os\.system"):
        read_torch(data, "weights.pth")
    assert not witness.exists()


def test_the_hostile_file_is_dangerous_to_an_ordinary_reader(write_hostile_pth, tmp_path):
    """Otherwise the test above would show nothing."""
    witness = tmp_path / "ran"
    data = write_hostile_pth(f"touch {witness}", "legacy")
    pickle.loads(data[data.index(b"ccollections") - 2 :])
    assert witness.exists()


@pytest.mark.parametrize("module", ["builtins", "torch", "numpy", "collections", "torch._utils"])
@pytest.mark.parametrize("attribute", ["eval", "load", "ndarray", "OrderedDict.fromkeys", "__import__"])
def test_only_listed_names_are_known(module, attribute):
    with pytest.raises(WeightFileError, match="is refused"):
        read_torch(b"\x80\x02" + f"c{module}\n{attribute}\n".encode() + b".", "file")


@LAYOUTS
def test_every_truncation_is_one_clear_error(write_pth, layout):
    data = write_pth(arrays(), layout)
    for length in [*range(0, len(data) - 1, max(1, len(data) // 40)), len(data) - 1]:
        with pytest.raises(WeightFileError, match=r"weights\.pth"):
            read_torch(data[:length], "weights.pth")


@pytest.mark.parametrize("data", [b"", b"not a checkpoint", b"PK\x03\x04 broken", pickle.dumps([1, 2]), b"\x93NUMPY"])
def test_what_is_no_checkpoint_is_named(data):
    with pytest.raises(WeightFileError, match=r"weights\.pth is truncated or not a PyTorch checkpoint"):
        read_torch(data, "weights.pth")


def test_a_tensor_beyond_its_storage_is_an_error(write_pth):
    data = write_pth({"x": np.zeros([4, 4], np.float32)}, "legacy", "")
    size = b"J\x04\x00\x00\x00"
    assert data.count(size) == 3  # twice the shape, once the stride
    with pytest.raises(WeightFileError, match="beyond its storage"):
        read_torch(data.replace(size, b"J\x05\x00\x00\x00", 1), "file")


def test_a_file_without_named_tensors_is_an_error(write_pth):
    with pytest.raises(WeightFileError, match="no state dict"):
        read_torch(write_pth({}), "file")
