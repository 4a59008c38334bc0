"""The lock on a workdir, against real other processes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import tensorflow as tf

from solo_dist.distributed.exit_codes import EXIT_USER_ERROR
from solo_dist.distributed.job import job_id
from solo_dist.errors import StoreError
from solo_dist.run.workdir_lock import WorkdirLock
from solo_dist.storage import lease
from solo_dist.storage.lease import Holder, LockError

HOLD = """
import sys
from solo_dist.run.workdir_lock import WorkdirLock
with WorkdirLock(sys.argv[1], heartbeat_seconds=float(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def start_holder(workdir, heartbeat_seconds=10.0):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir), str(heartbeat_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def leave(workdir, **changes):
    """Leaves a lock as some other process would have."""
    holder = dataclasses.replace(Holder.this_process(0.05, job_id(os.environ)), **changes)
    with tf.io.gfile.GFile(f"{workdir}/lock.json", "w") as file:
        file.write(json.dumps(dataclasses.asdict(holder)))
    return holder


def held_by(workdir):
    with tf.io.gfile.GFile(f"{workdir}/lock.json") as file:
        return json.loads(file.read())


def test_a_living_holder_is_named_and_a_killed_one_taken_over(tmp_path):
    process = start_holder(tmp_path)
    try:
        with pytest.raises(LockError) as error, WorkdirLock(str(tmp_path)):
            pass
        for part in (
            f"process {process.pid} on ",
            held_by(tmp_path)["since"],
            f"delete {tmp_path}/lock.json",
            "--workdir",
        ):
            assert part in str(error.value)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with WorkdirLock(str(tmp_path)):
        assert held_by(tmp_path)["pid"] == os.getpid()


def test_released_when_left(tmp_path):
    process = start_holder(tmp_path / "made" / "here")
    process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert os.listdir(tmp_path / "made" / "here") == []


def test_holder_elsewhere_without_a_sign_of_life_is_taken_over(tmp_path):
    workdir = str(tmp_path)
    leave(workdir, machine="another machine", host="other")
    with WorkdirLock(workdir) as mine:
        assert held_by(workdir)["token"] == mine._holder.token
    assert not tf.io.gfile.exists(f"{workdir}/lock.json")


def test_holder_elsewhere_that_lives_is_named(tmp_path):
    holder = leave(tmp_path, machine="another machine", host="other", heartbeat_seconds=10.0)
    beats = threading.Timer(0.5, leave, [tmp_path], {**dataclasses.asdict(holder), "beat": 1})
    beats.start()
    with pytest.raises(LockError, match="on other since"), WorkdirLock(str(tmp_path)):
        pass
    beats.join()


def test_earlier_start_of_the_same_job_elsewhere_is_taken_over_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    leave(tmp_path, machine="another machine", host="other", heartbeat_seconds=1e6)
    with WorkdirLock(str(tmp_path)):
        assert held_by(tmp_path)["job"] == "SLURM_JOB_ID=71"


def test_same_process_id_of_a_later_process_does_not_hold_the_lock(tmp_path):
    leave(tmp_path, process_started="1", heartbeat_seconds=1e6)
    with WorkdirLock(str(tmp_path)):
        assert held_by(tmp_path)["process_started"] != "1"


def test_two_at_the_same_moment(tmp_path, monkeypatch):
    # Both take over; the other writes after this one has written and before it looks again.
    leave(tmp_path, process_started="1")
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: leave(tmp_path, pid=1, host="other"))
    with pytest.raises(LockError, match="process 1 on other"), WorkdirLock(str(tmp_path)):
        pass
    assert held_by(tmp_path)["host"] == "other"


def test_a_lock_that_another_took_meanwhile_is_not_written_over(tmp_path):
    first, late = (WorkdirLock(str(tmp_path), heartbeat_seconds=1e6) for _ in range(2))

    class Late(WorkdirLock):
        def _read(self):
            found = super()._read()
            if found is None:
                first.__enter__()  # between the look and the write
            return found

    late.__class__ = Late
    with pytest.raises(LockError, match="is in use by process"), late:
        pass
    assert held_by(tmp_path)["token"] == first._holder.token
    assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]
    first.__exit__(None, None, None)


def test_a_holder_whose_lock_was_taken_leaves(tmp_path):
    process = start_holder(tmp_path, heartbeat_seconds=0.05)
    leave(tmp_path, host="other")
    assert process.wait(timeout=60) == EXIT_USER_ERROR
    assert "on other since" in process.stderr.read()
    assert held_by(tmp_path)["host"] == "other"


def test_renewed_at_every_heartbeat_and_when_deleted(tmp_path):
    with WorkdirLock(str(tmp_path), heartbeat_seconds=0.02) as mine:
        (tmp_path / "lock.json").unlink()
        while not (tmp_path / "lock.json").exists():
            pass
        first = held_by(tmp_path)
        while held_by(tmp_path)["beat"] == first["beat"]:
            pass
        assert held_by(tmp_path)["token"] == first["token"] == mine._holder.token


def test_damaged_lock_is_named(tmp_path):
    (tmp_path / "lock.json").write_text("{")
    with pytest.raises(LockError, match="lock.json is damaged"), WorkdirLock(str(tmp_path)):
        pass


def test_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=f"Cannot write to --workdir={tmp_path}/file/run"):
        WorkdirLock(f"{tmp_path}/file/run").__enter__()
