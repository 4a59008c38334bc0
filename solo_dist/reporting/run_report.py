"""The report of a run: reads the files that exist, analyses them, and writes the page and its files.

    path = write_report("runs/mine")  # runs/mine/report/index.html

Parts whose files are missing (no evaluation, no shards, no checkpoint) are left out, and the page says so.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from solo_dist.config import Config
from solo_dist.data.input.in_order import read_images
from solo_dist.data.schema import Manifest, load_manifest
from solo_dist.errors import UserError
from solo_dist.inference.ceiling import ceiling_at_quarter_resolution
from solo_dist.inference.coco_metrics import (
    METRICS,
    annotations_checksum,
    load_annotations,
)
from solo_dist.inference.detector import load_detector
from solo_dist.reporting import galleries, result_files, sections
from solo_dist.reporting.analysis import Analysis, CocoMetrics, analyse, evaluate_results
from solo_dist.reporting.grid_facts import compare_grids
from solo_dist.reporting.page import write_page
from solo_dist.reporting.run_files import Evaluation, RunFiles, read_run
from solo_dist.reporting.speed import Speed, measure
from solo_dist.reporting.training_curves import course
from solo_dist.run.directory import EVALUATION_METRICS_FILE, RunDirectory
from solo_dist.storage import file_io

_MOST_ANNOTATIONS = 100_000_000
"""Bytes of compressed training annotations beyond which their counts are left out: reading them takes minutes."""
_IMAGES_FOR_CEILING = 300
"""Most images whose ceiling is computed here; `solo-dist evaluate` computes it for any number."""
_IMAGES_FOR_SPEED = 8


def write_report(
    workdir: str,
    output: str = "",
    validation: str = "",
    step: int | None = None,
    wanted_precision: float = 0.9,
    speed: bool = True,
) -> str:
    """Writes the report of a run.

    Args:
      workdir: the run directory, a path or URL.
      output: folder of the page; empty: WORKDIR/report.
      validation: folder of the shards that were evaluated; empty: data.validation of the recipe.
      step: of the evaluation; None: the newest.
      wanted_precision: for the second threshold, 0 to 1.
      speed: measure the model's speed on this machine, if there is a checkpoint.

    Returns:
      Path of the page.
    Raises:
      ConfigError: there is no run, or no evaluation at that step.
    """
    run = read_run(workdir, step)
    folder = output.rstrip("/") or RunDirectory(workdir).report
    manifest = _manifest(run, validation or run.option("data.validation", ""), "validation")
    train_manifest = _manifest(run, run.option("data.train", ""), "training")
    values: dict[str, Any] = {}
    analysis = None
    annotations = _annotations(run, manifest) if manifest else None
    if annotations and manifest and run.evaluation:
        analysis = _analyse(run, run.evaluation, annotations, train_manifest, wanted_precision)
        values |= _of_evaluation(run, run.evaluation, analysis, annotations, manifest, folder)
    if annotations and manifest:
        values |= _of_data(run, manifest, train_manifest, annotations)
        values["speed"] = _speed(run, manifest, annotations) if speed else None
    progress = course(run.train, run.validation, run.option("train.global_batch", 1))
    values |= sections.of_run(run, progress, analysis, values.get("ceiling", {}))
    report = {
        "run": run.folder,
        "step": run.evaluation.step if run.evaluation else None,
        "missing": run.missing,
        "training": vars(values["course"]),
        "speed": values["speed"]._asdict() if values.get("speed") else None,
        "grids": [vars(row) for row in values.get("grids", [])],
        "evaluation": result_files.as_json(analysis) if analysis else None,
    }
    result_files.write_json(f"{folder}/report.json", report)
    files = result_files.FILES if analysis else ("report.json",)
    return write_page(folder, "report.html", **{**sections.EMPTY, **values, "missing": run.missing, "files": files})


def _manifest(run: RunFiles, folder: str, what: str) -> Manifest | None:
    if not folder:
        run.missing.append(f"The recipe names no {what} data.")
        return None
    try:
        return load_manifest(folder)
    except UserError as error:
        option = " Give their folder with --validation." if what == "validation" else ""
        run.missing.append(f"The {what} shards could not be read: {error}{option}")
        return None


def _annotations(run: RunFiles, manifest: Manifest) -> dict[str, Any] | None:
    try:
        return load_annotations(manifest.annotations)
    except UserError as error:
        run.missing.append(str(error))
        return None


def _analyse(
    run: RunFiles,
    evaluation: Evaluation,
    annotations: dict[str, Any],
    train_manifest: Manifest | None,
    wanted_precision: float,
) -> Analysis:
    results = _known_results(run, evaluation, annotations)
    images = _evaluated_images(run, evaluation, annotations, results)
    training = None
    if train_manifest:
        size = next(file.bytes for file in train_manifest.side_files if file.name.startswith("annotations"))
        if size <= _MOST_ANNOTATIONS:
            training = _annotations(run, train_manifest)
        else:
            run.missing.append("Counts of training examples are left out: the training annotations are very large.")
    measured = _measured(evaluation, annotations, results)
    return analyse(annotations, results, images, wanted_precision, training, measured)


def _measured(
    evaluation: Evaluation, annotations: Mapping[str, Any], results: list[dict[str, Any]]
) -> CocoMetrics | None:
    """The metrics that the evaluation wrote, or None if they are not of exactly these annotations and results."""
    stored = evaluation.category_metrics or {}
    whole = evaluation.image_ids is not None and len(results) == len(evaluation.results)
    metrics = {tag: evaluation.metrics[tag] for name in METRICS if (tag := f"segm/{name}") in evaluation.metrics}
    if not whole or len(metrics) < len(METRICS) or stored.get("annotations") != annotations_checksum(annotations):
        return None
    return CocoMetrics(metrics, {int(number): values for number, values in stored["categories"].items()})


def _known_results(run: RunFiles, evaluation: Evaluation, annotations: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results whose image, category and mask can be used; the others are counted among what is missing."""
    images = {image["id"]: [image["height"], image["width"]] for image in annotations["images"]}
    categories = {category["id"] for category in annotations["categories"]}
    known = []
    for result in evaluation.results:
        try:
            usable = result["category_id"] in categories and isinstance(result["score"], (int, float))
            usable = usable and result["segmentation"]["size"] == images.get(result["image_id"])
        except (KeyError, TypeError):
            usable = False
        if usable:
            known.append(result)
    total = len(evaluation.results)
    if len(known) < total:
        run.missing.append(
            f"{total - len(known)} of {total} detections of {evaluation.folder} are not of these validation images and "
            "categories, and were left out."
        )
    return known


def _evaluated_images(
    run: RunFiles, evaluation: Evaluation, annotations: Mapping[str, Any], results: list[dict[str, Any]]
) -> Collection[int]:
    """The images that were evaluated. If an older run did not list them, those that give the AP in metrics.json."""
    every = {image["id"] for image in annotations["images"]}
    if evaluation.image_ids is not None:
        return every.intersection(evaluation.image_ids)
    written = evaluation.metrics.get("segm/AP")
    for images in (every, {result["image_id"] for result in results}):
        metrics = evaluate_results(annotations, results, images).metrics
        if written is None or abs(metrics["segm/AP"] - written) < 1e-6:
            return images
    run.missing.append(
        f"{evaluation.folder} does not say which images it evaluated, and its AP of {written:.4f} is not that of all "
        "of them: the numbers here are of all images."
    )
    return every


def _of_evaluation(
    run: RunFiles,
    evaluation: Evaluation,
    analysis: Analysis,
    annotations: Mapping[str, Any],
    manifest: Manifest,
    folder: str,
) -> dict[str, Any]:
    """Sections on the evaluation; writes the csv files, overlays, and the thresholds into metrics.json."""
    metrics = {**evaluation.metrics, **result_files.operating_metrics(analysis)}
    file_io.write(f"{evaluation.folder}/{EVALUATION_METRICS_FILE}", json.dumps(metrics).encode())
    entry = {image["id"]: image for image in annotations["images"]}
    images = [entry[number] for number in analysis.image_ids]
    counts = galleries.count_by_image(analysis)
    result_files.write_files(folder, analysis, counts, [(i["id"], i.get("file_name", "")) for i in images])
    ceiling = _ceiling(run, evaluation, annotations, analysis)
    return sections.of_evaluation(analysis, ceiling) | _galleries(run, analysis, counts, images, manifest, folder)


def _ceiling(
    run: RunFiles, evaluation: Evaluation, annotations: Mapping[str, Any], analysis: Analysis
) -> dict[str, float]:
    """The metrics of perfect masks at a quarter of the canvas, by name; empty if unknown."""
    stored = {
        tag.removeprefix("ceiling/"): value for tag, value in evaluation.metrics.items() if tag.startswith("ceiling/")
    }
    canvas = run.option("data.canvas")
    if stored or not canvas:
        return stored
    if analysis.num_images > _IMAGES_FOR_CEILING or analysis.num_images < len(annotations["images"]):
        run.missing.append("The ceiling of quarter resolution is not known; solo-dist evaluate computes it.")
        return {}
    threshold = run.option("postprocess.mask_threshold", 0.5)
    target = run.option("loss.mask_target", "bits")
    found = ceiling_at_quarter_resolution(dict(annotations), (canvas[0], canvas[1]), threshold, target)
    return {tag.removeprefix("segm/"): value for tag, value in found.items()}


def _galleries(
    run: RunFiles,
    analysis: Analysis,
    counts: galleries.ImageCounts,
    images: list[dict[str, Any]],
    manifest: Manifest,
    folder: str,
) -> dict[str, Any]:
    worst, typical = galleries.choose_images(counts)
    close_ups = galleries.choose_close_ups(analysis)
    truths, detections = analysis.matches.truths, analysis.matches.detections
    place = {
        (kind, index): int((detections if kind == "false" else truths).image[index])
        for chosen in close_ups.values()
        for kind, index in chosen
    }
    wanted = {images[position]["id"] for position in [*worst, *typical, *place.values()]}
    try:
        pixels_of = read_images(manifest, wanted)
    except UserError as error:
        run.missing.append(str(error))
        return {}
    if len(pixels_of) < len(wanted):
        run.missing.append(f"{len(wanted) - len(pixels_of)} images are not in {manifest.folder} and are not shown.")

    def cards(positions: list[int]) -> list[galleries.ImageCard]:
        shown = [position for position in positions if images[position]["id"] in pixels_of]
        return [galleries.make_card(analysis, p, images[p], pixels_of[images[p]["id"]], counts, folder) for p in shown]

    def cut_out(kind: str, index: int) -> list[galleries.CaptionedImage]:
        image = images[place[kind, index]]
        pixels = pixels_of.get(image["id"])
        return [] if pixels is None else [galleries.make_close_up(analysis, kind, index, pixels)]

    groups = [
        (analysis.categories[category], [item for pair in chosen for item in cut_out(*pair)])
        for category, chosen in close_ups.items()
    ]
    return {"worst": cards(worst), "typical": cards(typical), "close_ups": [group for group in groups if group[1]]}


def _of_data(
    run: RunFiles, manifest: Manifest, train_manifest: Manifest | None, annotations: Mapping[str, Any]
) -> dict[str, Any]:
    """What the grids do to the data."""
    rows = compare_grids(annotations, manifest.canvas, manifest.grid)
    return sections.of_grids(manifest, train_manifest, run.train) | sections.of_grid_comparison(rows)


def _speed(run: RunFiles, manifest: Manifest, annotations: Mapping[str, Any]) -> Speed | None:
    """The speed of the newest checkpoint on this machine."""
    wanted = [image["id"] for image in annotations["images"][:_IMAGES_FOR_SPEED]]
    try:
        detector = load_detector(run.folder, "latest", Config.from_json(json.dumps(run.config)).validate())
        pixels_of = read_images(manifest, wanted)
    except UserError as error:
        run.missing.append(f"Speed was not measured: {error}")
        return None
    return measure(detector, list(pixels_of.values())) if pixels_of else None
