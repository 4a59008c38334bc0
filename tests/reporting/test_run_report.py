"""The report of a run, from its files: what is on the page, and what it says when something is missing."""

import csv
import dataclasses
import html
import io
import json
import re
import shutil

import numpy as np
import pytest

from solo_dist.config import Config, DataConfig, GridConfig
from solo_dist.data.schema import load_manifest
from solo_dist.data.sharding import job, records, shapes
from solo_dist.errors import ConfigError
from solo_dist.inference.coco_metrics import CocoEvaluator, load_annotations, write_evaluation
from solo_dist.inference.predict_files import best_threshold
from solo_dist.reporting import galleries, result_files, sections
from solo_dist.reporting.analysis import CategoryRow, Outcome, analyse
from solo_dist.reporting.grid_facts import compare_grids
from solo_dist.reporting.headlines import why
from solo_dist.reporting.page import render
from solo_dist.reporting.run_files import RunFiles, read_run
from solo_dist.reporting.run_report import write_report
from solo_dist.reporting.training_curves import course
from tests.reporting.slow import dense, encode

GRID = GridConfig(levels=("p3", "p4"), sizes=(12, 8), scale_ranges=((1, 48), (32, 2048)))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six images of shapes."""
    folder = str(tmp_path_factory.mktemp("shapes"))
    shapes.make_shapes(folder, "validation", 6, shapes.ShapesSettings(side=128))
    settings = records.ShardSettings((64, 64), GRID)
    shard_job = job.ShardJob(f"{folder}/instances.json", f"{folder}/images", f"{folder}/shards", settings)
    job.shard_coco(shard_job, processes=1)
    return f"{folder}/shards"


def results_of(annotations):
    """The true masks, every third under another name; a mask of nothing; the first under its own name too."""
    categories = [category["id"] for category in annotations["categories"]]
    results = []
    for number, entry in enumerate(annotations["annotations"]):
        category = entry["category_id"]
        if number % 3 == 0:
            category = categories[(categories.index(category) + 1) % len(categories)]
        mask = {"image_id": entry["image_id"], "segmentation": entry["segmentation"]}
        results.append({**mask, "category_id": category, "score": 0.9 - 0.01 * number})
    corner = np.zeros((128, 128), bool)
    corner[:3, :3] = True
    nothing = {"image_id": annotations["images"][0]["id"], "segmentation": encode(corner)}
    again = {**results[0], "category_id": annotations["annotations"][0]["category_id"], "score": 0.85}
    return [*results, again, {**nothing, "category_id": categories[0], "score": 0.2}]


@pytest.fixture
def run(tmp_path, shards):
    """A run directory with everything but a checkpoint."""
    folder = tmp_path / "run"
    annotations = load_annotations(load_manifest(shards).annotations)
    config = Config(name="tiny", data=DataConfig(train=shards, validation=shards, canvas=(64, 64)))
    evaluation = folder / "eval" / "step_40"
    evaluation.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    (folder / "environment.json").write_text(json.dumps({"python": "3.11.7", "packages": {"tensorflow": "2.17.1"}}))
    lines = [
        {"step": step, "split": "train", "loss/total": 4 - step / 20, "images_per_second": 8.0, "lr": 0.01}
        for step in range(2, 41, 2)
    ]
    lines += [{"step": step, "split": "validation", "segm/AP": step / 100, "segm/AP50": 0.5} for step in (20, 40)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (evaluation / "coco_instances_results.json").write_text(json.dumps(results_of(annotations)))
    (evaluation / "metrics.json").write_text(json.dumps({"segm/AP": 0.1}))
    (evaluation / "image_ids.json").write_text(json.dumps([image["id"] for image in annotations["images"]]))
    return folder


def check_page(path):
    """The page as text without tags; nothing of it comes from a network, and it is not large."""
    page = open(path, encoding="utf-8").read()
    assert len(page) < 15_000_000
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(([^)]*)\)""", page)
    outside = [a or b for a, b in addresses if re.match(r"\w+:", a or b) and not (a or b).startswith("data:")]
    assert not outside
    ids = re.findall(r'<section id="(\w+)"|<section class="notes" id="(\w+)"', page)
    body = re.sub(r"<(style|script|svg).*?</\1>", "", page, flags=re.DOTALL)
    return [a or b for a, b in ids], html.unescape(re.sub(r"<[^>]+>", " ", body))


def test_grids_are_counted_as_the_shard_tool_does(shards):
    manifest = load_manifest(shards)
    annotations = load_annotations(manifest.annotations)
    now, denser = compare_grids(annotations, manifest.canvas, dataclasses.replace(GRID, sizes=(6, 4)))
    assert (denser.sizes, now.instances) == ((9, 6), manifest.num_instances)
    assert now.colliding >= denser.colliding
    now, _ = compare_grids(annotations, manifest.canvas, GRID)
    counts = manifest.statistics
    stored = (manifest.num_instances, counts["colliding"], counts["lost"], counts["without_positives"])
    assert (now.instances, now.colliding, now.lost, now.without_positives) == stored


def csv_rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_the_report_of_a_run(run):
    path = write_report(str(run), speed=False)
    parts, text = check_page(path)
    assert "found under another name" in text
    assert parts == ["quality", "categories", "threshold", "errors", "confusion", "images", "training", "grid", "run"]
    assert "Weakest category" in text and "longer training would probably help" in text
    for name in result_files.FILES:
        assert (run / "report" / name).stat().st_size
    report = json.loads((run / "report" / "report.json").read_text())
    evaluation = report["evaluation"]
    assert report["missing"] == []
    assert evaluation["detections"] == evaluation["instances"] + 2
    # Every true mask was detected, every third of them under a wrong name.
    assert evaluation["errors"]["number"]["category"] == -(-evaluation["instances"] // 3)
    assert evaluation["errors"]["ap50_after_mending"]["category"] == pytest.approx(1.0)
    images = csv_rows(run / "report" / "images.csv")
    assert sum(int(row["instances"]) for row in images) == evaluation["instances"]
    confusion = csv_rows(run / "report" / "confusion.csv")
    assert sum(int(row["count"]) for row in confusion if row["true"]) == evaluation["instances"]
    overlays = re.findall(r'href="(images/\d+\.jpg)"', open(path).read())
    assert overlays and all((run / "report" / link).is_file() for link in overlays)


def test_the_best_threshold_is_for_predict(run):
    write_report(str(run), speed=False)
    report = json.loads((run / "report" / "report.json").read_text())
    assert best_threshold(str(run), 40) == report["evaluation"]["threshold"]["best"]["threshold"]
    metrics = json.loads((run / "eval" / "step_40" / "metrics.json").read_text())
    assert metrics["segm/AP"] == 0.1 and metrics["threshold/best_f1"] > 0
    (run / "eval" / "step_40" / "metrics.json").write_text("{}")
    with pytest.raises(ConfigError, match="solo-dist evaluate --report"):
        best_threshold(str(run), 40)


def test_without_an_evaluation(run):
    shutil.rmtree(run / "eval")
    parts, text = check_page(write_report(str(run), speed=False))
    assert parts == ["missing", "training", "grid", "run"]
    assert f"solo-dist evaluate --workdir={run}" in text


def test_without_validation_data(run, tmp_path):
    config = Config(name="tiny", data=DataConfig(validation=f"{tmp_path}/gone"))
    (run / "config.json").write_text(config.to_json())
    parts, text = check_page(write_report(str(run), speed=False))
    assert parts == ["missing", "training", "run"]
    assert "gone" in text and "--validation" in text
    (run / "config.json").write_text(Config(name="tiny").to_json())
    _, text = check_page(write_report(str(run), speed=False))
    assert "The recipe names no validation data." in text


def test_without_a_detection(run):
    (run / "eval" / "step_40" / "coco_instances_results.json").write_text("[]")
    parts, text = check_page(write_report(str(run), speed=False))
    assert "quality" in parts and "There is no detection" in text and "No threshold to recommend" in text
    assert json.loads((run / "report" / "report.json").read_text())["evaluation"]["threshold"]["best"] is None


def test_damaged_files_are_named_and_left_out(run):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 42, "spl\n[1]\n')
    (run / "environment.json").write_text("{")
    results = run / "eval" / "step_40" / "coco_instances_results.json"
    broken = [*json.loads(results.read_text()), {"image_id": 999}, {"image_id": 0, "category_id": 77, "score": 0.5}]
    results.write_text(json.dumps(broken))
    _, text = check_page(write_report(str(run), speed=False))
    assert "2 damaged lines left out" in text and "environment.json is damaged" in text
    assert f"2 of {len(broken)} detections" in text
    results.write_text("[")
    parts, text = check_page(write_report(str(run), speed=False))
    assert "quality" not in parts and "coco_instances_results.json is damaged" in text


def test_an_evaluation_of_unknown_images(run):
    (run / "eval" / "step_40" / "image_ids.json").unlink()
    _, text = check_page(write_report(str(run), speed=False))
    assert "does not say which images it evaluated" in text


@pytest.mark.slow
def test_stored_metrics_are_taken_if_they_are_of_these_annotations(run, shards):
    write_report(str(run), speed=False)
    computed = json.loads((run / "report" / "report.json").read_text())["evaluation"]
    annotations = load_annotations(load_manifest(shards).annotations)
    evaluator = CocoEvaluator(annotations)
    evaluator.add(results_of(annotations), [image["id"] for image in annotations["images"]])
    folder = run / "eval" / "step_40"
    write_evaluation(str(folder), evaluator.metrics(), evaluator)
    write_report(str(run), speed=False)
    assert json.loads((run / "report" / "report.json").read_text())["evaluation"] == computed
    # That they are read shows in a number that was changed by hand; that is not trusted for other annotations.
    stored = json.loads((folder / "category_metrics.json").read_text())
    for values in stored["categories"].values():
        values["AP"] = 0.125
    for checksum, taken in ((stored["annotations"], True), ("00000000", False)):
        (folder / "category_metrics.json").write_text(json.dumps(stored | {"annotations": checksum}))
        write_report(str(run), speed=False)
        rows = json.loads((run / "report" / "report.json").read_text())["evaluation"]["categories"]
        assert {row["ap"] == 0.125 for row in rows} == {taken}


def test_no_run_and_no_such_step(tmp_path, run):
    with pytest.raises(ConfigError, match="There is no run in"):
        write_report(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="it has: 40"):
        write_report(str(run), step=3)


def page_of(annotations, results, run):
    analysis = analyse(annotations, results, [image["id"] for image in annotations["images"]])
    values = sections.of_evaluation(analysis, {}) | sections.of_run(read_run(str(run)), course([], [], 1), analysis, {})
    return analysis, render("report.html", **{**sections.EMPTY, **values, "missing": [], "files": []})


@pytest.mark.parametrize("number", [1, 1203])
def test_one_category_and_very_many(run, tmp_path, number):
    image = {"id": 1, "file_name": "<b>.jpg", "height": 12, "width": 12}
    mask = encode(dense((2, 2, 8, 8)))
    entry = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": mask, "area": 36.0, "bbox": [2, 2, 6, 6]}
    categories = [{"id": i, "name": f"<thing {i}>"} for i in range(1, number + 1)]
    annotations = {"images": [image], "annotations": [entry | {"iscrowd": 0}], "categories": categories}
    results = [
        {"image_id": 1, "category_id": i, "score": 0.5 + i / 5000, "segmentation": mask} for i in range(1, number + 1)
    ]
    analysis, page = page_of(annotations, results, run)
    assert "&lt;thing 1&gt;" in page and "<thing" not in page
    assert analysis.confusion.shape == (number + 1, number + 1)
    assert len(page) < 3_000_000
    counts = galleries.count_by_image(analysis)
    result_files.write_files(str(tmp_path), analysis, counts, [(1, "<b>.jpg")])
    assert len(csv_rows(tmp_path / "categories.csv")) == number


@pytest.mark.parametrize(
    ("folder", "name"),
    [("runs/mine/", "mine"), ("photos/run", "photos"), ("run", "run"), ("gs://b/first_run", "first_run")],
)
def test_the_name_of_a_run_is_that_of_its_folder(folder, name):
    assert RunFiles(folder, {}, {}, [], [], None, []).name == name


# --- what is said about the training


def train_lines(losses):
    return [{"step": 10 * (i + 1), "split": "train", "loss/total": loss} for i, loss in enumerate(losses)]


def validation_lines(aps):
    return [{"step": 50 * (i + 1), "split": "validation", "segm/AP": ap} for i, ap in enumerate(aps)]


@pytest.mark.parametrize(
    ("losses", "aps", "remark"),
    [
        (np.linspace(4, 1, 20), (0.1, 0.3, 0.4, 0.35), "began to learn its training images by heart"),
        (np.linspace(4, 4, 20), (0.1, 0.3, 0.4, 0.35), "a lower learning rate may keep it from falling"),
        (np.linspace(4, 1, 20), (0.1, 0.3, 0.4, 0.45), "longer training would probably help"),
        (np.linspace(4, 1, 20), (0.1, 0.3, 0.4, 0.402), "AP has levelled off"),
        (np.linspace(4, 1, 20), (0.12, 0.214, 0.216, 0.201), "AP has levelled off"),
        (np.linspace(4, 1, 20), (0.1,), "only one evaluation"),
    ],
)
def test_remarks_on_the_curves(losses, aps, remark):
    assert remark in " ".join(course(train_lines(losses), validation_lines(aps), 8).remarks)


def test_duration_from_the_speed():
    lines = [{"step": 10, "images_per_second": 8.0}, {"step": 30, "images_per_second": 16.0}]
    assert course(lines, [], 4).seconds == pytest.approx(10 * 4 / 8 + 20 * 4 / 16)
    assert np.isnan(course([], [], 4).images_per_second)


def test_dropped_positives_are_those_of_a_step_however_often_a_line_is_written(shards):
    """Two positives are dropped in each step; the lines hold totals."""
    manifest = load_manifest(shards)
    every_10 = [{"step": step, "targets/dropped_positives": 20.0} for step in (10, 20, 30)]
    ends_early = [*every_10, {"step": 33, "targets/dropped_positives": 6.0}]
    from_a_checkpoint = [{**line, "step": 5000 + line["step"]} for line in ends_early]
    for lines in (every_10[:1], every_10, ends_early, from_a_checkpoint):
        facts = dict(sections.of_grids(manifest, None, lines)["grid_facts"])
        assert facts["positives beyond data.max_positives, a step"] == "2.00"
    assert not [name for name, _ in sections.of_grids(manifest, None, [])["grid_facts"] if "max_positives" in name]


# --- what is said about the weakest category and the threshold


def test_why_the_weakest_category_is_weak():
    outcome = Outcome(truths=10, found=6, confused=1, inaccurate=0, missed=3)
    row = CategoryRow("pear", 0.4, 0.9, 0.5, outcome, 8, 1, "quince", None, None)
    assert "its masks are less exact" in why(row, ap50_of_others=0.88)
    text = why(dataclasses.replace(row, ap50=0.7), ap50_of_others=0.88)
    assert "Not being seen at all is what goes wrong most." in text and "less exact" not in text
