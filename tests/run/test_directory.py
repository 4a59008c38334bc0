"""Paths of a run, and finding one of its checkpoints."""

import json

import numpy as np
import pytest

from solo_dist.config import Config
from solo_dist.errors import ConfigError
from solo_dist.run.checkpoint import CheckpointError, CheckpointMetadata, save_checkpoint
from solo_dist.run.directory import RunDirectory


def save(workdir, folder, step):
    save_checkpoint(f"{workdir}/{folder}/step_{step:08d}", {"a": np.zeros(1)}, CheckpointMetadata(step))


def test_find_checkpoint(tmp_path):
    directory = RunDirectory(f"{tmp_path}/")
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        directory.find_checkpoint("latest")
    for step in (10, 20):
        save(tmp_path, "checkpoints", step)
    # Without the slash: a name with two slashes is another object in a store.
    assert directory.find_checkpoint("latest") == f"{tmp_path}/checkpoints/step_00000020"
    named = f"{tmp_path}/checkpoints/step_00000010"
    assert directory.find_checkpoint(f"{named}/") == named
    with pytest.raises(CheckpointError, match="best"):
        directory.find_checkpoint("best")
    save(tmp_path, "best", 10)
    assert directory.find_checkpoint("best") == f"{tmp_path}/best/step_00000010"
    with pytest.raises(CheckpointError, match="nowhere is not a complete checkpoint"):
        directory.find_checkpoint("nowhere")


def test_a_run_on_a_disk_has_no_copies(tmp_path):
    directory = RunDirectory(str(tmp_path))
    assert directory.local == str(tmp_path) and not directory.is_local_copy(f"{tmp_path}/checkpoints/step_00000010")
    directory.remove_local_copies()
    assert tmp_path.is_dir()


def test_a_run_in_a_store_has_a_folder_of_its_own_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    directory, other = RunDirectory("gs://bucket/run/"), RunDirectory("gs://bucket/run2")
    assert directory.local == RunDirectory("gs://bucket/run").local != other.local
    assert directory.is_local_copy(f"{directory.local}/checkpoints/step_00000010")
    assert not directory.is_local_copy(f"{other.local}/checkpoints/step_00000010")


def test_config(tmp_path):
    directory = RunDirectory(str(tmp_path))
    assert directory.load_config() is None
    directory.save_config(Config(name="a"))
    assert directory.load_config() == Config(name="a")
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values)[:-5])
    with pytest.raises(ConfigError, match="config.json is damaged"):
        directory.load_config()
