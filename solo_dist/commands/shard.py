r"""Turns COCO annotations and their images into TFRecord shards, the input of train and evaluate.

    solo-dist shard --annotations=coco/annotations/instances_train2017.json --images=coco/train2017 \
        --output=coco/shards/train --config=solov2_r50_fpn_3x --keep_original --processes=8
    solo-dist shard --annotations=mine/instances.json --images=mine/images --output=mine/shards \
        --config=solov2_light_448_r50_fpn_3x --canvas=448x448

If a run was interrupted, the same command continues it. Images are stored fitted into the recipe's canvas, or at full
size with --keep_original, which recipes with random scale or crop need to see small objects at full resolution. Every
image and annotation that is left out is in OUTPUT/rejected.jsonl with its reason.
"""

import os
import posixpath
import shlex
import sys

from absl import flags
from ml_collections import config_flags

from solo_dist import cli
from solo_dist.config import parse_canvas

_ANNOTATIONS = flags.DEFINE_string("annotations", None, "COCO instances json; a path or URL.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "Folder of the images; a path or URL.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the shards to write; a path or URL.", required=True)
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, which gives canvas, grids and limits.", lock_config=True
)
_CANVAS = flags.DEFINE_string("canvas", "", "HEIGHTxWIDTH instead of the recipe's canvas, for example 512x512.")
_NUM_SHARDS = flags.DEFINE_integer("num_shards", 0, "Number of files; 0: one for every 64 images, at most 256.")
_PROCESSES = flags.DEFINE_integer("processes", os.cpu_count() or 1, "Number of processes; the shards are the same.", 1)
_KEEP_ORIGINAL = flags.DEFINE_bool("keep_original", False, "Store images at full size, not fitted into the canvas.")
_COPIES = flags.DEFINE_integer(
    "augmented_copies",
    1,
    "Number of random crops and scales to store of each image, as the recipe draws them; 1: the image as it is.",
)
_CROWD = flags.DEFINE_enum("crowd", "crowd", ["crowd", "instance"], "What iscrowd means; instance: an object.")
_BOXES = flags.DEFINE_enum("boxes", "json", ["json", "from_masks"], "Where boxes and areas of instances come from.")
_SIZES = flags.DEFINE_enum(
    "sizes", "auto", ["auto", "json", "files"], "Image sizes. auto: the json's, or the file's if missing or exchanged."
)
_ORIENTATION = flags.DEFINE_enum(
    "orientation", "auto", ["auto", "upright", "stored"], "Pixels that masks are on. auto: as the size in the json is."
)
_DROP_EMPTY = flags.DEFINE_bool("drop_empty_categories", False, "Leave out categories that no annotation names.")
_PIXEL_RANGE = flags.DEFINE_string(
    "pixel_range", "", "LOW:HIGH, black and white in images of more than 8 bits; by default found in the images."
)
_STRICT = flags.DEFINE_bool("strict", False, "Fail at the first rejection that is not a crowd or marked to ignore.")
flags.mark_flag_as_required("config")


def main(arguments: list[str]) -> None:
    """Makes the shards, and prints their contents and the next command."""
    del arguments
    config = _CONFIG.value
    canvas = parse_canvas(_CANVAS.value) if _CANVAS.value else config.data.canvas
    from solo_dist.data.pixel_range import parse_range
    from solo_dist.data.sharding.coco import Reading
    from solo_dist.data.sharding.inspection import summary
    from solo_dist.data.sharding.job import ShardJob, shard_coco
    from solo_dist.data.sharding.records import ShardSettings

    reading = Reading(
        crowd=_CROWD.value,
        boxes=_BOXES.value,
        sizes=_SIZES.value,
        orientation=_ORIENTATION.value,
        drop_empty_categories=_DROP_EMPTY.value,
    )
    settings = ShardSettings(
        canvas=canvas,
        grid=config.model.grid,
        keep_original=_KEEP_ORIGINAL.value,
        augmented_copies=_COPIES.value,
        augment=config.data.augment,
        seed=config.seed,
        reading=reading,
        pixel_range=parse_range(_PIXEL_RANGE.value) if _PIXEL_RANGE.value else None,
    )
    job = ShardJob(
        annotations=_ANNOTATIONS.value,
        images=_IMAGES.value.rstrip("/"),
        output=_OUTPUT.value.rstrip("/"),
        settings=settings,
        num_shards=_NUM_SHARDS.value,
        strict=_STRICT.value,
    )
    manifest = shard_coco(job, _PROCESSES.value)
    print(summary(manifest, config.data))
    print(f"Next: {_train_command(job.output)}")


def _train_command(output: str) -> str:
    """The command that trains on the shards. The folders of `solo-dist split` are named train and validation."""
    parent, name = posixpath.split(output)
    parts = ("train", "validation") if name in ("train", "validation") else ()
    folders = {part: f"{parent}/{part}" if parent else part for part in parts} or {"train": output}
    given, rest = cli.take_flags(sys.argv[1:], "config", "canvas")
    command = ["solo-dist", "train", f"--config={given['config']}", "--workdir=runs/mine"]
    command += [argument for argument in rest if argument.startswith("--config.")]
    if "canvas" in given:
        command.append(f"--config.data.canvas={given['canvas'].replace('x', ',')}")
    return shlex.join([*command, *(f"--config.data.{part}={folder}" for part, folder in folders.items())])


if __name__ == "__main__":
    cli.run(main)
