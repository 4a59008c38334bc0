"""Findings about this machine against what the system says, and about machines that lack something."""

import os
import subprocess
import sys

import psutil
import pytest

from solo_dist.diagnosis import machine, software, stores
from solo_dist.diagnosis.finding import Finding, as_text, verdict


def test_memory_cores_and_disk_are_those_of_the_system(tmp_path):
    memory = machine.memory()
    assert f"{psutil.virtual_memory().total / 1e9:.1f} GB" in memory.text
    assert machine.cores(gpus=0).text.startswith(str(len(os.sched_getaffinity(0))))
    few = machine.cores(gpus=1000)
    assert few.level == "note" and "data-service" in few.remedy
    disk = machine.disk(str(tmp_path))
    assert f"{psutil.disk_usage(str(tmp_path)).free / 1e9:.0f}" and "MB/s" in disk.text
    assert not list(tmp_path.iterdir())
    assert machine.clock().text.startswith("20")


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    finding = machine.disk(str(tmp_path))
    assert finding.level == "PROBLEM" and "Permission denied" in finding.text and "--workdir" in finding.remedy


def test_folders_are_tried(tmp_path):
    (tmp_path / "a").write_text("")
    assert stores.reading(str(tmp_path)).text.startswith(f"{tmp_path}: 1 names")
    missing = stores.reading(f"{tmp_path}/none")
    assert missing.level == "PROBLEM" and "solo-dist shard" in missing.remedy
    assert stores.writing(str(tmp_path)).level == "ok" and [path.name for path in tmp_path.iterdir()] == ["a"]
    (tmp_path / "file").write_text("")
    assert stores.writing(f"{tmp_path}/file").level == "PROBLEM"


def test_a_problem_is_shown_with_what_to_do():
    finding = Finding("GPU", "word " * 40, "PROBLEM", "install " * 30)
    lines = as_text(finding).splitlines()
    assert lines[0].startswith("  PROBLEM   GPU ") and max(map(len, lines)) <= 110
    assert any(line.strip().startswith("-> install") for line in lines)
    assert verdict([finding, Finding("a", "b")]) == "1 problem, no notes."


@pytest.mark.parametrize(("driver", "level"), [(False, "note"), (True, "PROBLEM")])
def test_a_missing_gpu_is_explained(driver, level, tmp_path, monkeypatch):
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15\n")
    path = tmp_path / ("version" if driver else "none")
    monkeypatch.setattr(software, "Path", lambda _: path)
    monkeypatch.setattr(software.tf.sysconfig, "get_build_info", lambda: {"cuda_version": "12.3"})
    finding = software._no_gpu()
    assert finding.level == level and ("570.86.15" in finding.text) == driver


def test_the_command_ends_with_a_verdict(tmp_path):
    command = [sys.executable, "-m", "solo_dist", "doctor", f"--data={tmp_path}/none", f"--workdir={tmp_path}/run"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 2 and not process.stderr, process.stderr
    subjects = [line[12:28].strip() for line in process.stdout.splitlines() if line[2:6].strip()]
    assert {"Python", "TensorFlow", "precision", "XLA", "cores", "memory", "disk", "stores", "data", "clock"} <= set(
        subjects
    )
    assert process.stdout.splitlines()[-1].startswith("1 problem, ")
