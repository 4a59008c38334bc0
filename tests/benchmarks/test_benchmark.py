"""The benchmark: how it times, and that it runs as a command and writes its numbers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from solo_dist.benchmarks import timing

ROOT = Path(__file__).resolve().parents[2]


def test_cases_take_turns_and_the_first_does_not_count():
    calls: list[str] = []
    seconds = timing.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert {name: len(turns) for name, turns in seconds.items()} == {"a": 3, "b": 3}


def test_ratio_is_of_medians():
    assert timing.ratio({"a": [9.0, 1.0, 4.0], "b": [2.0, 2.0, 50.0]}, "a", "b") == pytest.approx(2.0)


def test_command_writes_the_numbers(tmp_path):
    path = tmp_path / "numbers.json"
    command = [sys.executable, "-m", "solo_dist", "benchmark", "--what=targets", "--rounds=1", f"--json={path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    numbers = json.loads(path.read_text())
    assert numbers["targets"]["units"] > 0
    assert "targets.units" in done.stdout
