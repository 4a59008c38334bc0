"""The checkpoints of a run: what counts as one, what damage does, what is kept."""

import os
import random

import numpy as np
import pytest

from solo_dist.errors import StoreError
from solo_dist.run.checkpoint import COMMIT_FILE, CheckpointError, CheckpointMetadata
from solo_dist.run.checkpoint_store import CheckpointStore

ARRAYS = {"model/kernel": np.arange(12, dtype=np.float32).reshape(3, 4), "optimizer/step": np.array(7, np.int64)}


def filled_store(folder, steps, keep=10):
    store = CheckpointStore(str(folder), keep)
    for step in steps:
        arrays = {name: array + step for name, array in ARRAYS.items()}
        store.save(arrays, CheckpointMetadata(step, images=step * 8))
    store.wait()
    return store


def test_newest_are_kept_and_found(tmp_path):
    store = filled_store(tmp_path, [10, 20, 30, 40], keep=2)
    assert store.steps() == [30, 40]
    found = store.load_latest()
    assert (found.metadata.step, found.metadata.images) == (40, 320)
    np.testing.assert_array_equal(found.arrays["model/kernel"], ARRAYS["model/kernel"] + 40)


def test_what_is_left_of_a_save_that_never_finished_goes(tmp_path):
    filled_store(str(tmp_path), [10, 20])
    (tmp_path / "step_00000010" / COMMIT_FILE).unlink()
    filled_store(str(tmp_path), [30])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000020", "step_00000030"]


def test_a_save_that_never_finished_is_no_checkpoint(tmp_path):
    store = filled_store(tmp_path, [10, 20])
    os.remove(f"{store.path(20)}/{COMMIT_FILE}")
    assert store.steps() == [10]
    assert store.load_latest().metadata.step == 10
    store.save(ARRAYS, CheckpointMetadata(20))  # a new save of the same step takes the place of the remains
    store.wait()
    assert store.load_latest().metadata.step == 20


@pytest.mark.parametrize("seed", range(100))
def test_any_damage_of_the_newest_falls_back_to_the_one_before(tmp_path, seed, caplog):
    store = filled_store(tmp_path, [10, 20])
    damage(store.path(20), random.Random(seed))
    found = store.load_latest()
    assert found.metadata.step == 10
    np.testing.assert_array_equal(found.arrays["model/kernel"], ARRAYS["model/kernel"] + 10)


def damage(folder, chance):
    """Truncates, flips a bit in, or removes one of the files."""
    name = chance.choice(["arrays.safetensors", COMMIT_FILE])
    path = f"{folder}/{name}"
    data = bytearray(open(path, "rb").read())
    kind = chance.choice(["truncate", "flip", "remove"])
    if kind == "remove":
        os.remove(path)
        return
    if kind == "truncate":
        data = data[: chance.randrange(len(data))]
    elif name == COMMIT_FILE:
        # Flips that leave the text as valid as before (in free metadata) are no damage; hit what is checked.
        at = data.index(b"crc32c") + chance.randrange(6)
        data[at] ^= 1
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    with open(path, "wb") as file:
        file.write(data)


def test_damage_is_said(tmp_path, caplog):
    store = filled_store(tmp_path, [10, 20])
    with open(f"{store.path(20)}/arrays.safetensors", "r+b") as file:
        file.truncate(20)
    store.load_latest()
    assert "step_00000020" in caplog.text
    assert "20 bytes instead of" in caplog.text


def test_when_every_one_is_damaged_the_run_does_not_start_anew(tmp_path):
    store = filled_store(tmp_path, [10])
    with open(f"{store.path(10)}/arrays.safetensors", "r+b") as file:
        file.truncate(20)
    with pytest.raises(CheckpointError, match="None of the 1 checkpoints"):
        store.load_latest()


def test_a_failed_background_save_is_raised_at_the_next(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    store = CheckpointStore(f"{tmp_path}/checkpoints")
    store.save(ARRAYS, CheckpointMetadata(10))
    with pytest.raises(StoreError, match="checkpoint of step 10 could not be written"):
        store.wait()


def test_the_copy_a_run_goes_on_from_stays_until_a_newer_checkpoint_is_in_the_store(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the store's folder should be")
    for step in (10, 20):
        store = CheckpointStore(f"{tmp_path}/checkpoints", copy=f"{tmp_path}/copy")
        store.save(ARRAYS, CheckpointMetadata(step))
        with pytest.raises(StoreError, match="could not be written"):
            store.wait()
    assert CheckpointStore(f"{tmp_path}/copy").steps() == [10, 20]


def test_metadata_of_the_newest_that_can_be_read(tmp_path, caplog):
    store = filled_store(tmp_path, [10, 20])
    assert store.newest_metadata().step == 20
    open(f"{store.path(20)}/checkpoint.json", "w").close()  # as a machine that was reset can leave it
    assert store.newest_metadata().step == 10 and "step_00000020" in caplog.text
    open(f"{store.path(10)}/checkpoint.json", "w").close()
    assert store.newest_metadata() is None
