"""Computes the COCO mask metrics of a trained model at the original sizes of the validation images.

Examples:
  solo-dist evaluate --workdir=runs/shapes_tiny
      the newest checkpoint on the run's own validation shards

  solo-dist evaluate --workdir=runs/mine --checkpoint=best --config.data.validation=data/other/shards
      the checkpoint with the best mask AP, on other shards of the same categories

  solo-dist evaluate --workdir=runs/mine --checkpoint=runs/mine/checkpoints/step_00020000 --batch=8
      a certain checkpoint, eight images at a time

  solo-dist evaluate --workdir=runs/air --config.data.validation=air/shards/whole --tile=448x448 --overlap=0.25
      whole large images; the shards were made with --keep_original and without --tile

  solo-dist evaluate --workdir=runs/mine --report
      and then a page on it, as solo-dist report writes

Prints the COCO table beside the ceiling that perfect masks at a quarter of the canvas would reach, and writes
metrics.json, category_metrics.json, coco_instances_results.json and image_ids.json to WORKDIR/eval/step_N.
"""

from typing import Any

from absl import flags
from ml_collections import config_flags

from solo_dist import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe; by default the run's own.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory, a path or URL.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best, or the folder of a checkpoint.")
_REPORT = flags.DEFINE_bool("report", False, "Write WORKDIR/report/index.html afterwards; see solo-dist report.")
_BATCH = flags.DEFINE_integer("batch", 4, "Images at a time.", lower_bound=1)
_TILE = flags.DEFINE_string(
    "tile", "", "HEIGHTxWIDTH: look at whole images tile by tile, as predict does; one tile at a time."
)
_OVERLAP = flags.DEFINE_float("overlap", None, "Least share of a tile that the next one shows too; 0.2 by default.")


@flags.multi_flags_validator(["tile", "report"], "--report is not for --tile; evaluate shards of tiles for it.")
def _fit(values: dict[str, Any]) -> bool:
    return not (values["tile"] and values["report"])


def main(arguments: list[str]) -> None:
    """Evaluates, prints the table and writes the files."""
    del arguments
    config = _CONFIG.value

    from solo_dist.data.input.pipeline import load_split
    from solo_dist.data.tiling import parse_tiling
    from solo_dist.inference.ceiling import ceiling_at_quarter_resolution
    from solo_dist.inference.coco_metrics import format_table, write_evaluation
    from solo_dist.inference.detector import load_detector
    from solo_dist.inference.tiled_evaluation import evaluate_in_tiles
    from solo_dist.inference.validation_set import categories_of_classes
    from solo_dist.run.directory import RunDirectory

    tiling = parse_tiling(_TILE.value, _OVERLAP.value)
    manifest = load_split(config, "validation")
    detector = load_detector(_WORKDIR.value, _CHECKPOINT.value, config)
    categories = categories_of_classes(manifest, detector.categories, detector.pixel_range, detector.source)
    ceiling = None
    if tiling:
        evaluator = evaluate_in_tiles(detector, manifest, tiling, categories)
    else:
        evaluator = _evaluate_on_canvases(detector, manifest, categories)
        canvas, threshold = config.data.canvas, config.postprocess.mask_threshold
        ceiling = ceiling_at_quarter_resolution(evaluator.annotations, canvas, threshold, config.loss.mask_target)
    metrics = evaluator.metrics()
    folder = RunDirectory(_WORKDIR.value).evaluation(detector.step)
    at_most = {f"ceiling/{tag.removeprefix('segm/')}": value for tag, value in (ceiling or {}).items()}
    write_evaluation(folder, {**metrics, **at_most}, evaluator)
    print(f"Mask metrics of {detector.source} on {len(evaluator.image_ids)} images of {config.data.validation}")
    print(format_table(metrics, ceiling, evaluator.max_detections))
    print(f"Written to {folder}")
    if _REPORT.value:
        from solo_dist.reporting.run_report import write_report

        page = write_report(_WORKDIR.value, validation=config.data.validation, step=detector.step)
        print(f"Report: {page}")


def _evaluate_on_canvases(detector: Any, manifest: Any, categories: list[dict[str, Any]]) -> Any:
    """The evaluator after detection in all records, images or tiles, each fitted into the canvas."""
    from solo_dist.data.input.pipeline import build_dataset
    from solo_dist.data.input.reader import readable_errors
    from solo_dist.inference.coco_metrics import CocoEvaluator, evaluate

    evaluator = CocoEvaluator(manifest.annotations)
    batches = build_dataset(_CONFIG.value, "validation", batch_size=_BATCH.value)
    threshold = _CONFIG.value.postprocess.mask_threshold
    with readable_errors():
        evaluate(detector.detect, batches, evaluator, categories, threshold, progress=True)
    return evaluator


if __name__ == "__main__":
    cli.run(main)
