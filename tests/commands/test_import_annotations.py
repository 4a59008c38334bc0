"""`solo-dist import`, `split` and `prelabel` as programs: from a folder of LabelMe files to parts, and back."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def solo_dist(*arguments, code=0):
    command = [sys.executable, "-m", "solo_dist", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Ten images with LabelMe files, in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("my photos")
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number}.jpg")
        box = {"label": "cat" if number % 2 else "dog", "shape_type": "rectangle", "points": [[5, 6], [25, 36]]}
        line = {"label": "cat", "shape_type": "line", "points": [[5, 6], [25, 36]]}
        content = {"version": "5.4.1", "imagePath": f"{number}.jpg", "imageData": None, "shapes": [box, line]}
        (folder / f"{number}.json").write_text(json.dumps(content))
    return folder


def test_from_labelme_to_parts_and_back(labelled, tmp_path):
    output = tmp_path / "out put/instances.json"
    printed = solo_dist("import", "--format=labelme", f"--input={labelled}", f"--output={output}", "--rename=dog:hound")
    assert "10 images (0 without instances), 10 instances" in printed and "hound  5" in printed
    assert "left out: 10 x shape line has no area" in printed
    content = json.loads(output.read_text())
    assert [image["file_name"] for image in content["images"]] == [f"{number}.jpg" for number in range(10)]
    assert {one["area"] for one in content["annotations"]} == {600}
    report = json.loads((output.parent / "instances.report.json").read_text())
    assert report["left_out"]["counts"] == {"shape line has no area": 10}

    # The printed command can be pasted.
    program, *arguments = shlex.split(printed.splitlines()[-1].removeprefix("Next: "))
    assert program == "solo-dist"
    printed = solo_dist(*arguments, "--shares=6,2,2", "--seed=3")
    assert "train            6 images (60.0% of 60.0% asked for), 6 instances" in printed
    following = [shlex.split(line) for line in printed.splitlines() if line.startswith("  solo-dist shard ")]
    assert [words[2] for words in following] == [
        f"--annotations={output.parent}/splits/{part}.json" for part in ("train", "validation")
    ]
    assert [words[4] for words in following] == [
        f"--output={output.parent}/shards/{p}" for p in ("train", "validation")
    ]
    parts = [
        json.loads((output.parent / f"splits/{name}.json").read_text()) for name in ("train", "validation", "test")
    ]
    assert [len(part["images"]) for part in parts] == [6, 2, 2]

    common = [f"--images={labelled}", f"--output={tmp_path}/yolo", "--format=yolo"]
    solo_dist("prelabel", f"--annotations={output.parent}/splits/test.json", *common, "--subset=test")
    rows = [path.read_text().split() for path in sorted((tmp_path / "yolo/labels/test").iterdir())]
    assert sorted(row[0] for row in rows) == ["0", "1"]
    assert sorted(map(float, rows[0][1::2])) == [0.1, 0.1, 0.5, 0.5]


def test_nothing_kept_is_exit_code_2_with_the_reason(labelled, tmp_path):
    (tmp_path / "a.json").write_text((labelled / "1.json").read_text().replace("rectangle", "point"))
    PIL.Image.new("RGB", (50, 40)).save(tmp_path / "1.jpg")
    told = solo_dist("import", "--format=labelme", f"--input={tmp_path}", f"--output={tmp_path}/out", code=2)
    assert told.startswith("error: No object is left of 1 images; left out: 1 x shape line has no area")
    assert told.count("\n") == 1 and not (tmp_path / "out/instances.json").exists()
    told = solo_dist("import", "--format=yolo", f"--input={tmp_path}/none", f"--output={tmp_path}/out", code=2)
    assert "none: no names of categories" in told and told.count("\n") == 1
