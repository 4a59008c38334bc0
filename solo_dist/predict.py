r"""Finds objects in images: draws their masks over the images and writes COCO results.

Examples:
  solo-dist predict --workdir=runs/shapes_tiny --images='data/shapes_tiny/validation/images/*' --output=out
      the newest checkpoint on all images of a folder

  solo-dist predict --workdir=runs/mine --checkpoint=best --images='holiday/*.jpg' --output=out \
      --score_threshold=0.5
      only what is rather certain; --score_threshold=best takes the threshold that solo-dist report found

  solo-dist predict --workdir=gs://bucket/run --images='gs://bucket/photos/*.png' --output=gs://bucket/out
      everything in a bucket

  solo-dist predict --workdir=runs/mine --images=holiday --output=out --shard=2/4
      the second of four processes, on this machine or others, that share the work; the first has --shard=1/4

  solo-dist predict --workdir=runs/mine --images=clip.mp4 --output=out
      a video, frame by frame, to out/clip.mp4; needs the extra `video`

  solo-dist predict --workdir=runs/air --images=air/new --output=out --tile=448x448 --overlap=0.25
      large images, which the model sees tile by tile

  solo-dist predict --model=mmdet:solov2_light_r18_fpn_3x --images='holiday/*.jpg' --output=out
      a published model, 80 categories of COCO, without any training; solo-dist models lists the names

OUTPUT gets one overlay NAME.jpg for each image and coco_instances_results.json, whose entries name the file; the
image_id is the number of the file in the order of the names, from 1. With --shard=i/n the json is
coco_instances_results_i_of_n.json. A video (mp4, m4v, mov, avi, mkv, webm, animated gif) becomes NAME.mp4 without sound
and NAME_coco_instances_results.json, whose image_id is the number of the frame, from 1. `solo-dist prelabel` makes
LabelMe and YOLO files of results. The exit code is 1 if a file could not be read; the others are done all the same.
"""

import logging
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from solo_dist import cli, recipes
from solo_dist.errors import ConfigError

BEST = "best"
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe; by default the run's or the model's own.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory, a path or URL.")
_MODEL = flags.DEFINE_string(
    "model", None, "In place of a run: mmdet:NAME, or with --config other weights of COCO's 80 categories."
)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best, or the folder of a checkpoint.")
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "A folder of images and videos, a file, or a pattern in quotes such as 'photos/*.jpg'.",
    required=True,
)
_ANNOTATIONS = flags.DEFINE_string(
    "annotations", "", "COCO json: only the images that it lists, by their names in the folder --images."
)
_PIXEL_RANGE = flags.DEFINE_string(
    "pixel_range", "", "LOW:HIGH, black and white in images of more than 8 bits; by default as in training."
)
_TILE = flags.DEFINE_string(
    "tile", "", "HEIGHTxWIDTH: look at large images tile by tile, as shard --tile cuts them, and join the instances."
)
_OVERLAP = flags.DEFINE_float("overlap", None, "Least share of a tile that the next one shows too; 0.2 by default.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the overlays and the results.", required=True)
_BATCH = flags.DEFINE_integer(
    "batch", 0, "Images that the network gets at once; by default 8, or fewer if the canvas is large.", lower_bound=0
)
_SHARD = flags.DEFINE_string(
    "shard", "1/1", "i/n: only every n-th file, beginning with the i-th, for n processes beside each other."
)
_INDEX_PNGS = flags.DEFINE_bool(
    "index_pngs", False, "Also write NAME.png for each image, whose pixels are 0 or the number of an instance."
)
_SCORE_THRESHOLD = flags.DEFINE_string(
    "score_threshold",
    "0.3",
    "Least score of what is drawn and written: 0 to 1, or best for the one that solo-dist report found.",
)


@flags.validator("score_threshold", "must be a number from 0 to 1, or best.")
def _is_threshold(value: str) -> bool:
    try:
        return value == BEST or 0 <= float(value) <= 1
    except ValueError:
        return False


def main(arguments: list[str]) -> int:
    """Predicts and says how much was found; returns the exit code."""
    del arguments

    from solo_dist.data.pixel_range import parse_range
    from solo_dist.data.tiling import parse_tiling
    from solo_dist.inference import predict_files as files

    tiling = parse_tiling(_TILE.value, _OVERLAP.value)
    shard = files.parse_shard(_SHARD.value)
    listed = bool(_ANNOTATIONS.value)
    paths = files.listed_images(_ANNOTATIONS.value, _IMAGES.value) if listed else files.find_images(_IMAGES.value)
    detector = _detector()
    if _PIXEL_RANGE.value:
        detector.pixel_range = parse_range(_PIXEL_RANGE.value)
    output = _OUTPUT.value.rstrip("/")
    threshold = _SCORE_THRESHOLD.value
    least = files.best_threshold(_WORKDIR.value or "", detector.step) if threshold == BEST else float(threshold)
    options = files.Options(
        least, _BATCH.value or files.default_batch(detector.config.data.canvas), shard, _INDEX_PNGS.value, tiling
    )
    summary = files.predict_files(detector, paths, output, options)
    print(f"{summary.instances} instances in {summary.images} images, from {detector.source}; see {output}")
    for path, reason in summary.unreadable:
        print(f"not read: {path}: {reason}", file=sys.stderr)
    if summary.unreadable:
        print(f"{len(summary.unreadable)} of {len(paths)} files could not be read.", file=sys.stderr)
    return 1 if summary.unreadable else 0


def _detector() -> Any:
    """The model of --workdir or --model."""
    from solo_dist.inference.detector import build_detector, load_detector
    from solo_dist.weights import published
    from solo_dist.weights.categories import coco_categories
    from solo_dist.weights.load import load_model_weights

    workdir, source = _WORKDIR.value or "", _MODEL.value or ""
    if bool(workdir) == bool(source):
        raise ConfigError("give --workdir=RUN for a model of yours, or --model=mmdet:NAME for a published one.")
    if not source:
        return load_detector(workdir, _CHECKPOINT.value, _CONFIG.value)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)  # a download logs its progress
    config = _CONFIG.value or recipes.get(published.find(source).recipe).validate()
    return build_detector(config, coco_categories(), lambda model: load_model_weights(model, source), source)


if __name__ == "__main__":
    cli.run(main)
