"""Which checkpoint a run resumes from, for every value of --resume and for later starts of a job."""

import numpy as np
import pytest

from solo_dist.config import Config, TrainConfig
from solo_dist.errors import ConfigError
from solo_dist.run.checkpoint import CheckpointMetadata, save_checkpoint
from solo_dist.run.directory import RunDirectory
from solo_dist.training.start import check_same_run, find_resume_point


def save(folder, step, **metadata):
    save_checkpoint(
        folder, {"step": np.array(step)}, CheckpointMetadata(**{"step": step, "images": 8 * step, **metadata})
    )


def find(workdir, resume, is_chief=True):
    directory = RunDirectory(str(workdir))
    return find_resume_point(directory, directory.checkpoints(), resume, is_chief)


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints of steps 10 and 20, and folder `other` with one of step 15 of another run."""
    for step in (10, 20):
        save(f"{tmp_path}/run/checkpoints/step_{step:08d}", step, job="SOLO_DIST_JOB_ID=mine")
    save(f"{tmp_path}/other", 15)
    return tmp_path / "run"


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_nothing_to_resume(tmp_path, resume):
    assert find(tmp_path, resume) == (None, "", "", False)


def test_auto_takes_the_newest(run):
    point = find(run, "auto")
    assert (point.checkpoint.metadata.step, point.folder) == (20, f"{run}/checkpoints/step_00000020")


def test_never_is_refused_unless_the_same_job_has_saved(run, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for job in ("", "another"):
        monkeypatch.setenv("SOLO_DIST_JOB_ID", job)
        with pytest.raises(ConfigError, match="--resume=never, but .* holds a run at step 20"):
            find(run, "never")
    assert find(run, "never", is_chief=False).checkpoint.metadata.step == 20
    monkeypatch.setenv("SOLO_DIST_JOB_ID", "mine")
    assert find(run, "never").checkpoint.metadata.step == 20


def test_a_path_is_where_the_first_start_begins(tmp_path, run):
    named = f"{tmp_path}/other"
    point = find(tmp_path / "new", f"{named}/")
    assert (point.checkpoint.metadata.step, point.folder, point.resumed_from) == (15, named, named)
    save(f"{tmp_path}/new/checkpoints/step_00000018", 18, resumed_from=named)
    for resume in (named, "auto"):
        point = find(tmp_path / "new", resume)
        assert (point.checkpoint.metadata.step, point.resumed_from) == (18, named)
    with pytest.raises(ConfigError, match="is step 15, but .* already holds step 20"):
        find(run, named)


def test_a_checkpoint_of_no_run_is_refused(tmp_path):
    save(f"{tmp_path}/imported", 0, images=None)
    with pytest.raises(ConfigError, match="imported is not a checkpoint of a run; .* set model.weights"):
        find(tmp_path / "new", f"{tmp_path}/imported")


def test_curves_that_could_not_be_uploaded_are_those_of_a_local_copy(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    remote = RunDirectory("gs://bucket/run")
    store = RunDirectory(str(tmp_path / "empty")).checkpoints()
    copy, elsewhere = f"{remote.local}/checkpoints/step_00000010", f"{tmp_path}/elsewhere"
    for folder, unpublished in ((copy, True), (elsewhere, False)):
        save(folder, 10)
        assert find_resume_point(remote, store, folder, True).unpublished is unpublished


def test_another_run_in_the_same_place(tmp_path, caplog):
    directory = RunDirectory(str(tmp_path))
    check_same_run(Config(name="a"), directory)
    directory.save_config(Config(name="a"))
    check_same_run(Config(name="a", train=TrainConfig(steps=7)), directory)
    assert "changed since this run was started: train.steps=7 was 90000" in caplog.text
    with pytest.raises(ConfigError, match="holds a run with name='a', now it is 'b'"):
        check_same_run(Config(name="b"), directory)
