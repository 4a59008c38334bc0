"""The time and memory of evaluating many detections, beside pycocotools alone, and of the report on them.

Random data like COCO's val2017: 5,000 images of 480 x 640 with 7 instances and 100 detections each, 80 categories. Each
case runs once, in a process of its own: pycocotools takes minutes. Seconds are those of the CPU, which other programs
do not change.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from typing import Any

import numpy as np
import PIL.Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from solo_dist.benchmarks.timing import Options, peak_kilobytes, run_python
from solo_dist.config import Config, DataConfig
from solo_dist.data.schema import ANNOTATIONS
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.inference.coco_metrics import CocoEvaluator, load_annotations, write_evaluation
from solo_dist.reporting.run_report import write_report
from solo_dist.run.directory import RESULTS_FILE, RunDirectory
from solo_dist.storage import file_io

IMAGES, CATEGORIES = 5000, 80
_HEIGHT, _WIDTH = 480, 640
_INSTANCES, _NEAR, _FAR = 7, 30, 70
"""In an image: instances, detections near one of them, and others."""
_SHAPES = 4000
_FILES = 16
"""Different image files."""


def run(options: Options) -> dict[str, float]:
    """Seconds, gigabytes, and how many times faster than pycocotools alone."""
    del options
    with tempfile.TemporaryDirectory() as folder:
        make_run(folder, IMAGES)
        found = {case: _measured(case, folder) for case in ("pycocotools", "evaluator", "report")}
    assert abs(found["pycocotools"]["ap"] - found["evaluator"]["ap"]) < 1e-9
    return {
        "pycocotools_vs_evaluator": found["pycocotools"]["seconds"] / found["evaluator"]["seconds"],
        **{f"{case}_{name}": one[name] for case, one in found.items() for name in ("seconds", "gigabytes")},
    }


def make_run(folder: str, images: int) -> None:
    """Writes images and annotations, their shards, and a run with results on them; the evaluator adds metrics."""
    annotations, results = random_evaluation(images)
    rng = np.random.default_rng(1)
    for number in range(_FILES):
        pixels = rng.integers(0, 255, (12, 16, 3), np.uint8)
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels).resize((_WIDTH, _HEIGHT), PIL.Image.Resampling.BICUBIC).save(buffer, "JPEG")
        file_io.write(f"{folder}/images/{number}.jpg", buffer.getvalue())
    file_io.write(f"{folder}/instances.json", json.dumps(annotations).encode())
    config = Config(name="random", data=DataConfig(validation=f"{folder}/shards", canvas=(_HEIGHT, _WIDTH)))
    settings = ShardSettings(config.data.canvas, config.model.grid)
    shard_coco(ShardJob(f"{folder}/instances.json", f"{folder}/images", config.data.validation, settings), 0, False)
    directory = RunDirectory(f"{folder}/run")
    file_io.write(directory.config_file, config.to_json().encode())
    file_io.write(f"{directory.evaluation(1)}/{RESULTS_FILE}", json.dumps(results).encode())


def random_evaluation(images: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO json and detections, of which some have the mask of a true instance and most of these its category."""
    rng = np.random.default_rng(0)
    shapes = _shapes(rng)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        truths: list[dict[str, Any]] = []
        for place in rng.integers(len(shapes), size=_INSTANCES):
            shape = {"segmentation": shapes[place][0], "area": shapes[place][1], "bbox": shapes[place][2]}
            values = {"id": len(annotations) + len(truths) + 1, "image_id": image, "iscrowd": int(rng.random() < 0.01)}
            truths.append({**values, **shape, "category_id": int(rng.integers(1, CATEGORIES + 1))})
        annotations += truths
        for truth in (truths[place] for place in rng.integers(_INSTANCES, size=_NEAR)):
            right = truth["category_id"] if rng.random() < 0.8 else int(rng.integers(1, CATEGORIES + 1))
            mask = truth["segmentation"] if rng.random() < 0.3 else shapes[rng.integers(len(shapes))][0]
            results.append({"image_id": image, "category_id": right, "score": rng.beta(2, 2), "segmentation": mask})
        for place in rng.integers(len(shapes), size=_FAR):
            category, score = int(rng.integers(1, CATEGORIES + 1)), rng.beta(1, 4)
            mask = shapes[place][0]
            results.append({"image_id": image, "category_id": category, "score": score, "segmentation": mask})
    size = {"height": _HEIGHT, "width": _WIDTH}
    entries = [{"id": i, "file_name": f"{i % _FILES}.jpg", **size} for i in range(1, images + 1)]
    categories = [{"id": i, "name": f"category {i}"} for i in range(1, CATEGORIES + 1)]
    return {"images": entries, "annotations": annotations, "categories": categories}, results


def _shapes(rng: np.random.Generator) -> list[tuple[dict[str, Any], float, list[float]]]:
    """Masks of ragged blots of many sizes, with area and box."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    found: list[tuple[dict[str, Any], float, list[float]]] = []
    while len(found) < _SHAPES:
        radius = np.exp(rng.uniform(np.log(6), np.log(120))) * (1 + 0.25 * rng.standard_normal(24))
        x, y = rng.uniform(0, _WIDTH) + radius * np.cos(angles), rng.uniform(0, _HEIGHT) + radius * np.sin(angles)
        outline = np.stack([x.clip(0, _WIDTH), y.clip(0, _HEIGHT)], axis=1).ravel().tolist()
        rle = coco_mask.merge(coco_mask.frPyObjects([outline], _HEIGHT, _WIDTH))
        area = float(coco_mask.area(rle))
        if area > 20:
            mask = {"size": [_HEIGHT, _WIDTH], "counts": rle["counts"].decode()}
            found.append((mask, area, coco_mask.toBbox(rle).tolist()))
    return found


def _measured(case: str, folder: str) -> dict[str, float]:
    output = run_python("-m", "solo_dist.benchmarks.evaluation", case, folder)
    return json.loads(output.splitlines()[-1])


def _with_pycocotools(annotations: dict[str, Any], results: list[dict[str, Any]]) -> float:
    """AP as its documentation computes it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _with_evaluator(annotations: dict[str, Any], results: list[dict[str, Any]]) -> CocoEvaluator:
    evaluator = CocoEvaluator(annotations)
    evaluator.add(results, [image["id"] for image in annotations["images"]])
    evaluator.metrics()
    return evaluator


def measure(case: str, folder: str) -> dict[str, float]:
    """Runs a case in this process, and measures it without the imports and the reading of the json files."""
    evaluation = RunDirectory(f"{folder}/run").evaluation(1)
    if case != "report":
        annotations = load_annotations(f"{folder}/shards/{ANNOTATIONS}")
        results = json.loads(file_io.read(f"{evaluation}/{RESULTS_FILE}"))
    ap = float("nan")
    started = time.process_time()
    if case == "report":
        write_report(f"{folder}/run", speed=False)
    elif case == "pycocotools":
        ap = _with_pycocotools(annotations, results)
    else:
        evaluator = _with_evaluator(annotations, results)
    seconds = time.process_time() - started
    if case == "evaluator":
        ap = evaluator.metrics()["segm/AP"]
        write_evaluation(evaluation, evaluator.metrics(), evaluator)
    return {"seconds": seconds, "gigabytes": peak_kilobytes() / 1e6, "ap": ap}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
