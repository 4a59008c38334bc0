"""One checkpoint: what is read back, and what is refused."""

import json

import numpy as np
import pytest
import tensorflow as tf

from solo_dist.run.checkpoint import (
    CheckpointError,
    CheckpointMetadata,
    assign_arrays,
    load_checkpoint,
    load_metadata,
    save_checkpoint,
)

ARRAYS = {
    "model/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "optimizer/step": np.array(7, np.int64),
    "model/transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
}


def test_arrays_come_back_bit_for_bit_with_their_shapes(tmp_path):
    save_checkpoint(f"{tmp_path}/c", ARRAYS, CheckpointMetadata(step=3, images=24))
    arrays, metadata = load_checkpoint(f"{tmp_path}/c")
    assert metadata == load_metadata(f"{tmp_path}/c") == CheckpointMetadata(step=3, images=24)
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)


OF_VERSION_1 = """
{"file": "arrays.safetensors", "bytes": 22088212, "crc32c": 507009814, "step": 20, "images": 160, "seed": 0,
 "categories": [{"id": 1, "name": "disc"}], "recipe": "shapes_tiny", "resumed_from": "", "job": null,
 "ap": 0.25, "ap_images": 200, "best_ap": 0.0}
"""


def test_metadata_of_the_first_version(tmp_path):
    (tmp_path / "checkpoint.json").write_text(OF_VERSION_1)
    categories = [{"id": 1, "name": "disc"}]
    expected = CheckpointMetadata(20, 160, 0, categories, recipe="shapes_tiny", ap=0.25, ap_images=200)
    assert load_metadata(str(tmp_path)) == expected


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"step": 3}', json.dumps({"file": "a", "bytes": 1})])
def test_another_file_of_that_name_is_refused(tmp_path, text):
    (tmp_path / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_metadata(str(tmp_path))


def test_another_architecture_is_named():
    variables = {"model/kernel": tf.Variable(tf.zeros([3, 4])), "model/bias": tf.Variable(tf.zeros([4]))}
    with pytest.raises(CheckpointError, match=r"run/x is of another architecture.*model/bias"):
        assign_arrays(variables, {"model/kernel": np.zeros([3, 4], np.float32)}, "run/x")
    arrays = {"model/kernel": np.zeros([3, 5], np.float32), "model/bias": np.zeros([4], np.float32)}
    with pytest.raises(CheckpointError, match=r"model/kernel is \(3, 5\) there and \(3, 4\) here"):
        assign_arrays(variables, arrays, "run/x")
    np.testing.assert_array_equal(variables["model/kernel"].numpy(), 0)
