"""Runs side by side."""

import csv
import json
import subprocess
import sys

import pytest

from solo_dist.config import Config
from solo_dist.errors import ConfigError
from solo_dist.reporting.compare import option_differences, write_comparison
from solo_dist.reporting.run_files import read_run


def make_run(folder, seed, speed, aps, evaluated=True):
    folder.mkdir(parents=True)
    config = Config(name="tiny", seed=seed)
    config.train.global_batch = 4
    (folder / "config.json").write_text(config.to_json())
    (folder / "environment.json").write_text("{}")
    lines = [
        {"step": step, "split": "train", "loss/total": 1 / step, "images_per_second": speed} for step in (10, 20, 30)
    ]
    lines += [{"step": 10 * (i + 1), "split": "validation", "segm/AP": ap} for i, ap in enumerate(aps)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if evaluated:
        (folder / "eval" / "step_30").mkdir(parents=True)
        (folder / "eval" / "step_30" / "metrics.json").write_text(json.dumps({"segm/AP": aps[-1]}))
        (folder / "eval" / "step_30" / "coco_instances_results.json").write_text("[]")
    return folder


def test_what_differs_and_how_long_it_took(tmp_path):
    one = make_run(tmp_path / "one" / "run", 0, 8.0, (0.1, 0.2, 0.3))
    two = make_run(tmp_path / "two" / "run", 5, 16.0, (0.3, 0.4, 0.5))
    page = open(write_comparison([f"{one}/", str(two)], str(tmp_path / "out")), encoding="utf-8").read()
    assert "one/run" in page and "<code>seed</code>" in page and "http-equiv" in page
    rows = list(csv.DictReader(open(tmp_path / "out" / "comparison.csv")))
    assert [row["AP"] for row in rows] == ["0.3", "0.5"]
    assert [float(row["seconds"]) for row in rows] == [15.0, 7.5]
    # The goal is what the weaker run reached: 0.3, after 30 steps of 4 images at 8/s, and 10 steps at 16/s.
    assert [float(row["to_ap"]) for row in rows] == [15.0, 2.5]
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["options"] == {"seed": [0, 5]}
    assert option_differences([read_run(str(one))] * 2) == {}


def test_a_run_without_evaluation_takes_part(tmp_path):
    one = make_run(tmp_path / "one", 0, 8.0, (0.1,))
    two = make_run(tmp_path / "two", 0, 8.0, (), evaluated=False)
    page = open(write_comparison([str(one), str(two)], str(tmp_path / "out")), encoding="utf-8").read()
    assert "two: The run has not been evaluated" in page


def test_one_run_is_no_comparison(tmp_path):
    one = make_run(tmp_path / "one", 0, 8.0, (0.1,))
    with pytest.raises(ConfigError, match="two or more different"):
        write_comparison([str(one), f"{one}/"], str(tmp_path / "out"))


def test_the_command_takes_folders(tmp_path):
    runs = [str(make_run(tmp_path / name, 0, 8.0, (0.1,))) for name in ("one", "two")]
    code = [sys.executable, "-m", "solo_dist", "compare", *runs, f"--output={tmp_path}/out"]
    done = subprocess.run(code, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"Comparison: {tmp_path}/out/index.html"
