"""Files of every kind give the arrays that were put in."""

import keras
import numpy as np
import pytest
import safetensors.numpy

from solo_dist.run.checkpoint import CheckpointMetadata, save_checkpoint
from solo_dist.weights.errors import WeightFileError
from solo_dist.weights.files import read_weights

ARRAYS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.array([1, -2], np.int64),
    "c": np.float16([[0.5]]),
}


def assert_same(actual, expected):
    assert sorted(actual) == sorted(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype
        np.testing.assert_array_equal(actual[name], array)


def test_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors.numpy.save(ARRAYS, metadata={"format": "np"}))
    assert_same(read_weights(str(path)), ARRAYS)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(WeightFileError, match="x.safetensors is truncated"):
        read_weights(str(path))


def test_safetensors_in_bfloat16(tmp_path):
    path = tmp_path / "x.safetensors"
    header = b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    upper = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    path.write_bytes(len(header).to_bytes(8, "little") + header + upper.tobytes())
    np.testing.assert_array_equal(read_weights(str(path))["x"], [1.5, -2.0])


def test_safetensors_of_another_type_is_an_error(tmp_path):
    path = tmp_path / "x.safetensors"
    header = b'{"x":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(WeightFileError, match="x is of type F8_E4M3; save it as F32"):
        read_weights(str(path))


def test_torch_and_our_own(tmp_path, write_pth):
    (tmp_path / "x.pth").write_bytes(write_pth(ARRAYS | {"c": np.float16([[0.5]])}))
    assert_same(read_weights(str(tmp_path / "x.pth")), ARRAYS)
    save_checkpoint(f"{tmp_path}/step_00000001", ARRAYS, CheckpointMetadata(step=1))
    assert_same(read_weights(f"{tmp_path}/step_00000001"), ARRAYS)


@pytest.mark.parametrize("name", ["x.keras", "x.h5", "x.weights.h5"])
def test_keras_files_name_layer_and_index(tmp_path, name):
    inputs = keras.Input((4, 4, 2))
    inner = keras.Sequential([keras.layers.Conv2D(3, 1, name="first")], name="stem")
    model = keras.Model(inputs, keras.layers.BatchNormalization(name="second")(inner(inputs)))
    path = f"{tmp_path}/{name}"
    (model.save_weights if name == "x.weights.h5" else model.save)(path)
    arrays = read_weights(path)
    assert sorted(arrays) == ["first/0", "first/1", "second/0", "second/1", "second/2", "second/3"]
    np.testing.assert_array_equal(arrays["first/0"], inner.get_layer("first").kernel)
    np.testing.assert_array_equal(arrays["second/3"], np.ones(3))


@pytest.mark.parametrize(
    ("name", "content"), [("x.h5", b"\x89HDF\r\n\x1a\n and then nothing"), ("x.keras", b"PK\x03\x04")]
)
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightFileError, match=f"{name} is truncated"):
        read_weights(str(tmp_path / name))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(WeightFileError, match="nothing.pth cannot be read"):
        read_weights(f"{tmp_path}/nothing.pth")
    with pytest.raises(WeightFileError, match="is a folder without checkpoint.json"):
        read_weights(str(tmp_path))
