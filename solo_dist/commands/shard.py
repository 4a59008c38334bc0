r"""Turns COCO annotations and their images into TFRecord shards, the input of train and evaluate.

    solo-dist shard --annotations=coco/annotations/instances_train2017.json --images=coco/train2017 \
        --output=coco/shards/train --config=solov2_r50_fpn_3x --keep_original --processes=8
    solo-dist shard --annotations=mine/instances.json --images=mine/images --output=mine/shards \
        --config=solov2_light_448_r50_fpn_3x --canvas=448x448
    solo-dist shard --annotations=air/instances.json --images=air/images --output=air/shards \
        --config=solov2_light_448_r50_fpn_3x --canvas=448x448 --tile=448x448 --overlap=0.25
    solo-dist shard --annotations='sa/*.tar' --images='sa/*.tar' --output=sa/shards --config=solov2_r50_fpn_3x

On a cluster, the same command with one more flag does a part of the work (docs/sharding.md, launch/README.md): --plan,
then any number of tasks with --task_index and --task_count, then --finish.

If a run was interrupted, the same command continues it. Images are stored fitted into the recipe's canvas, or at full
size with --keep_original, which recipes with random scale or crop need to see small objects at full resolution. Every
image and annotation that is left out is in OUTPUT/rejected.jsonl with its reason.
"""

import os
import posixpath
import shlex
import sys
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import config_flags

from solo_dist import cli
from solo_dist.config import parse_canvas
from solo_dist.distributed.array_task import array_task
from solo_dist.errors import ConfigError

if TYPE_CHECKING:
    from solo_dist.data.sharding.plan import Plan
    from solo_dist.data.sharding.shard_job import ShardJob
    from solo_dist.data.sharding.sources import Source

_ANNOTATIONS = flags.DEFINE_multi_string(
    "annotations",
    None,
    "COCO instances json, or a folder or tar file with one json an image; a path, URL or pattern. May be repeated.",
    required=True,
)
_IMAGES = flags.DEFINE_multi_string(
    "images",
    None,
    "Folder or tar file of the images; a path, URL or pattern. If repeated, the first is of the first annotations, ...",
    required=True,
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the shards to write; a path or URL.", required=True)
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe, which gives canvas, grids and limits.", lock_config=True
)
_CANVAS = flags.DEFINE_string("canvas", "", "HEIGHTxWIDTH instead of the recipe's canvas, for example 512x512.")
_NUM_SHARDS = flags.DEFINE_integer(
    "num_shards",
    0,
    "Number of files; 0: one for every 64 images or tiles, at most 256, or more if they would exceed 200 MB.",
)
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
_TILE = flags.DEFINE_string(
    "tile", "", "HEIGHTxWIDTH: cut images into tiles of so many pixels, each an image of its own."
)
_OVERLAP = flags.DEFINE_float("overlap", None, "Least share of a tile that the next one shows too; 0.2 by default.")
_PLAN = flags.DEFINE_bool("plan", False, "Only decide what is in each shard: the first step on a cluster.")
_TASK_INDEX = flags.DEFINE_integer(
    "task_index", None, "Only make the shards of this task, from 0. With --task_count alone: from Slurm or Kubernetes."
)
_TASK_COUNT = flags.DEFINE_integer("task_count", None, "Number of all tasks. By default: that of the Slurm array.", 1)
_FINISH = flags.DEFINE_bool("finish", False, "Only verify the shards of all tasks and write the manifest.")
_STRICT = flags.DEFINE_bool("strict", False, "Fail at the first rejection that is not a crowd or marked to ignore.")
flags.mark_flag_as_required("config")


def main(arguments: list[str]) -> None:
    """Makes the shards, or does one step of it, and prints what was made and the next command."""
    del arguments
    job = _job()
    task = None if _PLAN.value or _FINISH.value else array_task(os.environ, _TASK_INDEX.value, _TASK_COUNT.value)
    if _PLAN.value + _FINISH.value + (_TASK_INDEX.value is not None) > 1:
        raise ConfigError("--plan, --task_index and --finish are different steps; give one of them.")
    import tensorflow as tf

    from solo_dist.data.sharding import job as steps

    tf.config.set_visible_devices([], "GPU")  # a training may need all of its memory
    if _PLAN.value:
        plan = steps.plan_shards(job)
        print(_planned(plan) if plan else f"{job.output} is finished already.")
    elif task:
        made = steps.make_task(job, *task, _PROCESSES.value)
        print(f"Task {task[0]} of {task[1]}: {made} shards are made." if made else f"Nothing to make in {job.output}.")
    else:
        finish = _FINISH.value
        manifest = (
            steps.finish_shards(job, _TASK_COUNT.value or 1) if finish else steps.shard_coco(job, _PROCESSES.value)
        )
        from solo_dist.data.sharding.inspection import summary

        print(summary(manifest, _CONFIG.value.data))
        cli.print_next(_train_command(job.output))


def _planned(plan: "Plan") -> str:
    return (
        f"{plan.num_images} images in {plan.num_shards} shards are planned. Next: the same command with --task_index=0 "
        f"to N-1 and --task_count=N in place of --plan, N at most {plan.num_shards}, then with --finish."
    )


def _job() -> "ShardJob":
    """What the flags ask for."""
    config = _CONFIG.value
    canvas = parse_canvas(_CANVAS.value) if _CANVAS.value else config.data.canvas
    from solo_dist.data.pixel_range import parse_range
    from solo_dist.data.sharding.reading import Reading
    from solo_dist.data.sharding.records import ShardSettings
    from solo_dist.data.sharding.shard_job import ShardJob
    from solo_dist.data.tiling import parse_tiling

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
        tiling=parse_tiling(_TILE.value, _OVERLAP.value),
        pixel_range=parse_range(_PIXEL_RANGE.value) if _PIXEL_RANGE.value else None,
    )
    first, *others = _sources()
    return ShardJob(
        annotations=first.annotations,
        images=first.images,
        output=_OUTPUT.value.rstrip("/"),
        settings=settings,
        num_shards=_NUM_SHARDS.value,
        strict=_STRICT.value,
        more_sources=tuple(others),
    )


def _sources() -> "list[Source]":
    """Annotations with their images. Raises ConfigError if their numbers differ, or a pattern matches nothing."""
    from solo_dist.data.sharding.sources import Source

    annotations, images = _expanded("annotations", _ANNOTATIONS.value), _expanded("images", _IMAGES.value)
    if len(images) == 1:
        images *= len(annotations)
    if len(images) != len(annotations):
        raise ConfigError(
            f"There are {len(annotations)} --annotations and {len(images)} --images; give the images of each "
            "annotations, in the same order, or one --images for all."
        )
    return [Source(*pair) for pair in zip(annotations, images, strict=True)]


def _expanded(flag: str, patterns: list[str]) -> list[str]:
    from solo_dist.storage import file_io

    found = []
    for pattern in patterns:
        matches = file_io.matches(pattern) if set(pattern) & set("*?") else [pattern]
        if not matches:
            raise ConfigError(f"--{flag}={pattern} matches nothing; give it in quotes, and check it with ls.")
        found += [path.rstrip("/") for path in matches]
    return found


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
