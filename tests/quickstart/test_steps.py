"""A step is repeated exactly if its command, its inputs or its result have changed; signals stop what runs."""

import os
import signal
import sys
import threading
import time

import pytest

from solo_dist.errors import ConfigError
from solo_dist.quickstart import steps
from solo_dist.quickstart.processes import Processes
from solo_dist.quickstart.steps import Record, Step, run_step


@pytest.fixture
def step(tmp_path):
    """A step that reads a file and a folder."""
    (tmp_path / "in.json").write_text("1")
    (tmp_path / "photos/sub").mkdir(parents=True)
    (tmp_path / "photos/sub/a.jpg").write_text("a")
    (tmp_path / "result").write_text("made")
    reads = (str(tmp_path / "in.json"), str(tmp_path / "photos"))
    return Step("make it", ("--version",), reads, (str(tmp_path / "result"),), remakes=str(tmp_path / "made"))


def done(step, folder):
    """The record of another process, in which the step is done."""
    record = Record(str(folder))
    record.begin(step)
    record.finish(step)
    return Record(str(folder))


def test_a_step_is_done_if_it_ended_well_and_nothing_has_changed(step, tmp_path):
    record = Record(str(tmp_path))
    assert not record.is_done(step)
    record.begin(step)
    assert not Record(str(tmp_path)).is_done(step), "begun, not ended"
    assert done(step, tmp_path).is_done(step)


@pytest.mark.parametrize("change", ["in.json", "photos/sub/b.jpg", "photos/sub/a.jpg", "result", "command"])
def test_every_change_repeats_the_step(step, tmp_path, change):
    record = done(step, tmp_path)
    if change == "command":
        step = Step(step.title, ("--help",), step.reads, step.writes)
    elif change == "result":
        (tmp_path / "result").unlink()
    else:
        (tmp_path / change).write_text("other")
    assert not record.is_done(step)


def test_results_of_other_inputs_are_removed_and_a_training_is_protected(step, tmp_path):
    record = done(step, tmp_path)
    (tmp_path / "made").mkdir()
    record.begin(step)
    assert (tmp_path / "made").exists(), "an interrupted step continues"
    (tmp_path / "in.json").write_text("2")
    record.begin(step)
    assert not (tmp_path / "made").exists()
    checkpoints = tmp_path / "made/checkpoints"
    checkpoints.mkdir(parents=True)
    protected = Step(step.title, step.arguments, step.reads, step.writes, step.remakes, str(checkpoints))
    (tmp_path / "in.json").write_text("3")
    (checkpoints / "step_1").write_text("")
    with pytest.raises(ConfigError, match="checkpoints was made from other images, labels or another recipe"):
        record.begin(protected)
    assert checkpoints.exists()


def test_a_damaged_record_repeats_everything(step, tmp_path):
    done(step, tmp_path)
    (tmp_path / steps.RECORD).write_text('{"make')
    assert not Record(str(tmp_path)).is_done(step)


def test_a_command_runs_once_and_a_failure_is_passed_on(step, tmp_path, capfd):
    record = Record(str(tmp_path))
    with Processes() as processes:
        assert run_step(step, record, processes, "[1/2]") == 0
        assert run_step(step, record, processes, "[1/2]") == 0
        bad = Step("fail", ("no-such-command",), (), ())
        assert run_step(bad, record, processes, "[2/2]") == 2
    printed = capfd.readouterr().out
    assert printed.count("solo-dist --version") == 1 and "[1/2] make it: done before" in printed
    assert "[2/2] fail failed: exit code 2 (a user's error)." in printed and not record.is_done(bad)


def test_a_link_to_a_file_that_is_gone_is_an_input_like_others(step, tmp_path):
    (tmp_path / "photos/b.jpg").symlink_to("/nowhere/b.jpg")
    assert done(step, tmp_path).is_done(step)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_command_and_the_code_says_so(tmp_path, number, monkeypatch):
    # A command that would run for a minute; it tells with a file that it has started.
    (tmp_path / "solo_dist").mkdir()
    (tmp_path / "solo_dist/__init__.py").touch()
    (tmp_path / "solo_dist/__main__.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'started')!r}).touch()\ntime.sleep(60)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert sys.path  # the child finds this folder first, as `python -m` does

    def send():
        while not (tmp_path / "started").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    record, step = Record(str(tmp_path)), Step("wait", ("wait",), (), ())
    with Processes() as processes:
        threading.Thread(target=send).start()
        assert run_step(step, record, processes, "") == 193
        assert processes.stopped_by == number
    assert not record.is_done(step)
