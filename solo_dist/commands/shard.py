r"""Turns COCO annotations and their images into TFRecord shards, the input of train and evaluate.

    solo-dist shard --annotations=coco/annotations/instances_train2017.json --images=coco/train2017 \
        --output=coco/shards/train --config=solov2_r50_fpn_3x --keep_original --processes=8
    solo-dist shard --annotations=mine/instances.json --images=mine/images --output=mine/shards \
        --config=solov2_light_448_r50_fpn_3x --canvas=448x448

A run that was interrupted is continued by the same command. Pictures are fitted into the recipe's canvas;
--keep_original stores them whole, which random scale and crop at full resolution need. Every image and annotation
that is left out is in rejected.jsonl with its reason.
"""

import os
import re

from absl import flags
from ml_collections import config_flags

from solo_dist import cli
from solo_dist.errors import ConfigError

_ANNOTATIONS = flags.DEFINE_string("annotations", None, "COCO instances json; a path or URL.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "Folder of the pictures.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the shards.", required=True)
_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe: canvas and grids, limits, views.", lock_config=True)
_CANVAS = flags.DEFINE_string("canvas", "", "HxW instead of the recipe's, for example 512x512.")
_NUM_SHARDS = flags.DEFINE_integer("num_shards", 0, "Files; 0: one for every 64 images, at most 256.")
_PROCESSES = flags.DEFINE_integer("processes", os.cpu_count() or 1, "Processes; no influence on the bytes.", 1)
_KEEP_ORIGINAL = flags.DEFINE_bool("keep_original", False, "Store pictures whole instead of fitted into the canvas.")
_VIEWS = flags.DEFINE_integer("views", 1, "Above 1: that many random crops and scales of each picture, as the recipe.")
_STRICT = flags.DEFINE_bool("strict", False, "Fail at the first rejection that is not a crowd or marked to ignore.")
flags.mark_flag_as_required("config")


def main(arguments: list[str]) -> None:
    """Makes the shards and prints what is in them."""
    del arguments
    config = _CONFIG.value
    canvas = _parse_canvas(_CANVAS.value) if _CANVAS.value else tuple(config.data.canvas)
    from solo_dist.data.sharding import job as sharding
    from solo_dist.data.sharding.records import ShardSettings

    settings = ShardSettings(
        canvas=canvas,
        grid=config.model.grid,
        keep_original=_KEEP_ORIGINAL.value,
        views=_VIEWS.value,
        augment=config.data.augment,
        seed=config.seed,
    )
    job = sharding.ShardJob(
        annotations=_ANNOTATIONS.value,
        images=_IMAGES.value.rstrip("/"),
        output=_OUTPUT.value.rstrip("/"),
        settings=settings,
        num_shards=_NUM_SHARDS.value,
        strict=_STRICT.value,
    )
    manifest = sharding.shard_coco(job, _PROCESSES.value)
    print(sharding.summary(manifest, config.data))


def _parse_canvas(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise ConfigError(f"--canvas={text} must be HxW, for example 512x512.")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    cli.run(main)
