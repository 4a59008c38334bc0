"""Which of two checkpoints is the better one."""

import logging

import numpy as np
import pytest

from solo_dist.run.best import BestCheckpoint, is_better
from solo_dist.run.checkpoint import CheckpointMetadata
from solo_dist.run.checkpoint_store import CheckpointStore


def scored(ap, images=100, step=1):
    return CheckpointMetadata(step, ap=ap, ap_images=images)


@pytest.mark.parametrize(
    ("new", "best", "better"),
    [
        (scored(0.2), None, True),
        (scored(0.0), None, True),
        (scored(-1.0), None, False),
        (CheckpointMetadata(), None, False),
        (scored(0.2), scored(0.1), True),
        (scored(0.1), scored(0.1), False),
        (scored(0.1, images=200), scored(0.9, images=100), True),
        (scored(0.9, images=100), scored(0.1, images=200), False),
    ],
)
def test_is_better(new, best, better):
    assert is_better(new, best) is better


def test_only_the_best_is_kept(tmp_path):
    for step, ap in enumerate([0.1, 0.3, 0.2], start=1):
        best = BestCheckpoint(CheckpointStore(str(tmp_path), keep=1))  # as after a restart
        best.offer({"a": np.zeros(1)}, scored(ap, step=step))
    assert best.metadata == scored(0.3, step=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000002"]


def test_the_line_of_an_evaluation_says_what_is_best_so_far(tmp_path):
    best = BestCheckpoint(CheckpointStore(str(tmp_path), keep=1))
    assert best.standing(10) == ""
    best.offer({"a": np.zeros(1)}, scored(0.3, step=10))
    assert best.standing(10) == "best so far"
    best.offer({"a": np.zeros(1)}, scored(0.2, step=20))
    assert best.standing(20) == "best so far 0.300 at step 10"


@pytest.mark.parametrize(
    ("step", "eval_every", "remarked"), [(30, 10, False), (40, 10, True), (40, 20, False), (40, 0, False)]
)
def test_an_ap_that_has_stopped_rising_is_remarked_on(step, eval_every, remarked, tmp_path, caplog):
    best = BestCheckpoint(CheckpointStore(str(tmp_path), keep=1))
    best.remark(step, eval_every)
    assert not caplog.text
    best.offer({"a": np.zeros(1)}, scored(0.3, step=10))
    with caplog.at_level(logging.INFO):
        best.remark(step, eval_every)
    assert ("no better AP since step 10 (0.300)" in caplog.text) is remarked
