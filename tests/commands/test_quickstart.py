"""`solo-dist quickstart` and `solo-dist suggest` as programs, from drawn images with labels of several tools.

All are slow: a run trains for some seconds and starts eight processes.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60)}


def quickstart(*arguments):
    return [sys.executable, "-m", "solo_dist", "quickstart", "--minutes=0.2", *map(str, arguments)]


def run(command, code=0):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout if code == 0 else done.stderr


def draw(path, seed):
    """Saves an image of 120 x 160 with discs and boxes; the label and polygon of each."""
    rng = np.random.default_rng(seed)
    image = PIL.Image.fromarray(rng.integers(0, 80, (120, 160, 3), np.uint8))
    shapes = []
    for column in range(3):
        name = str(rng.choice(list(COLOURS)))
        x, y, r = 27 + 53 * column, rng.uniform(30, 90), rng.uniform(12, 24)
        angles = np.arange(24) / 24 * 2 * np.pi if name == "red" else np.arange(4) / 4 * 2 * np.pi + np.pi / 4
        polygon = [[float(x + r * np.cos(angle)), float(y + r * np.sin(angle))] for angle in angles]
        PIL.ImageDraw.Draw(image).polygon([tuple(point) for point in polygon], fill=COLOURS[name])
        shapes.append((name, polygon))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95)
    return shapes


def labelme(folder, count):
    for number in range(count):
        shapes = [
            {"label": name, "shape_type": "polygon", "points": polygon, "group_id": None, "flags": {}}
            for name, polygon in draw(folder / f"photo {number}.jpg", number)
        ]
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"photo {number}.jpg"}
        content |= {"imageData": None, "imageHeight": 120, "imageWidth": 160}
        (folder / f"photo {number}.json").write_text(json.dumps(content))


def yolo(folder, count):
    for number in range(count):
        rows = [
            " ".join([str(list(COLOURS).index(name)), *(f"{x / 160:.6f} {y / 120:.6f}" for x, y in polygon)])
            for name, polygon in draw(folder / f"images/train/{number}.jpg", number)
        ]
        path = folder / f"labels/train/{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows))
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/train\nnames:\n  0: red\n  1: green\n")


def roboflow(folder, count):
    """Parts with a json each, category 0 as the root of the others, and a readme."""
    for part, numbers in (("train", range(count - 2)), ("valid", range(count - 2, count))):
        names = [{"id": 0, "name": "shapes", "supercategory": "none"}]
        names += [{"id": i, "name": name, "supercategory": "shapes"} for i, name in enumerate(COLOURS, start=1)]
        content = {"info": {"year": "2026"}, "categories": names, "images": [], "annotations": []}
        for number in numbers:
            file = f"{number}_jpg.rf.0123456789abcdef.jpg"
            content["images"].append({"id": number, "license": 1, "file_name": file, "height": 120, "width": 160})
            for name, polygon in draw(folder / part / file, number):
                (left, top), (right, bottom) = np.min(polygon, axis=0), np.max(polygon, axis=0)
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]),
                        "image_id": number,
                        "category_id": list(COLOURS).index(name) + 1,
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (right - left) * (bottom - top),
                        "segmentation": [np.ravel(polygon).tolist()],
                        "iscrowd": 0,
                    }
                )
        (folder / part / "_annotations.coco.json").write_text(json.dumps(content))
    (folder / "README.roboflow.txt").write_text("shapes\n")


def check_results(workdir, count):
    report = json.loads((workdir / "run/report/report.json").read_text())
    assert report
    overlays = sorted(path.name for path in (workdir / "overlays").glob("*.jpg"))
    validation = json.loads((workdir / "splits/validation.json").read_text())
    assert len(overlays) == len(validation["images"]) and 1 <= len(overlays) <= count // 2
    assert [one["name"] for one in validation["categories"]] in (["red", "green"], ["green", "red"])
    manifest = json.loads((workdir / "shards/train/manifest.json").read_text())
    assert manifest["num_images"] == count - len(overlays) and not manifest["rejected"]


def interrupt(command, started, number):
    """Runs a command until a file of it exists, sends a signal, and returns the exit code."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not started() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    return process.wait(timeout=300)


@pytest.mark.slow
def test_labelme_interrupted_in_the_shards_and_in_the_training(tmp_path):
    photos, workdir = tmp_path / "my photos", tmp_path / "work"
    labelme(photos, 16)
    command = quickstart(f"--images={photos}", f"--workdir={workdir}")
    assert interrupt(command, (workdir / "shards/train").exists, signal.SIGINT) == 193
    log = workdir / "run/metrics.jsonl"
    assert interrupt(command, log.exists, signal.SIGTERM) == 193
    printed = run(command)
    assert printed.count(": done before") >= 5 and "\n[6/8] train\n" in printed
    assert printed.count("Next:") == 1, "only what follows the quickstart"
    check_results(workdir, 16)
    lines = [line for line in printed.splitlines() if line.startswith("  solo-dist export ")]
    assert lines == [f"  solo-dist export --workdir={workdir}/run --checkpoint=best"]

    # Nothing has changed: nothing is done. The training has ended: other data are refused.
    assert run(command).count(": done before") == 8
    for file in ("photo 3.jpg", "photo 3.json"):
        shutil.copy(photos / file, photos / f"another {file}")
    told = run(command, code=2)
    assert "checkpoints was made from other images, labels or another recipe; give another --workdir" in told


@pytest.mark.slow
@pytest.mark.parametrize("write", [yolo, roboflow])
def test_datasets_of_other_tools(tmp_path, write):
    write(tmp_path / "data", 12)
    printed = run(quickstart(f"--images={tmp_path}/data", f"--workdir={tmp_path}/work"))
    assert f"--format={'yolo' if write is yolo else 'coco'}" in printed
    check_results(tmp_path / "work", 12)


@pytest.mark.slow
def test_nothing_labelled_ends_with_the_reason(tmp_path):
    for number in range(5):
        draw(tmp_path / f"photos/{number}.jpg", number)
        (tmp_path / f"photos/{number}.json").write_text(json.dumps({"shapes": [], "imagePath": f"{number}.jpg"}))
    told = run(quickstart(f"--images={tmp_path}/photos", f"--workdir={tmp_path}/work"), code=2)
    assert told == "error: No object is left of 5 images: their annotation files have none.\n"
