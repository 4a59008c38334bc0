"""The demo's data set: drawn and sharded for a recipe if it is missing."""

import dataclasses
import logging
import time

from solo_dist.config import Config
from solo_dist.data.schema import MANIFEST, is_complete, load_manifest
from solo_dist.data.sharding.job import ShardJob, shard_coco
from solo_dist.data.sharding.records import ShardSettings
from solo_dist.data.sharding.shapes import DEFAULT_SETTINGS, SPLITS, make_shapes
from solo_dist.errors import ConfigError
from solo_dist.storage import file_io, urls
from solo_dist.storage.host_lock import exclusive

log = logging.getLogger(__name__)

_WAIT_SECONDS = 600


def make_missing_shapes(config: Config, is_chief: bool) -> None:
    """Makes the demo's data set if it is missing; workers other than the chief wait until it is complete.

    Raises ConfigError if the chief does not make it in time.
    """
    shapes = config.data.shapes_folder.rstrip("/")
    wanted = [folder for folder in (config.data.train, config.data.validation) if folder.startswith(f"{shapes}/")]
    if not shapes or not wanted:
        return
    if is_chief:
        ensure_shapes(shapes, config)
        return
    for _ in range(_WAIT_SECONDS):
        if all(_fits(folder, config) for folder in wanted):
            return
        time.sleep(1)
    raise ConfigError(
        f"The chief did not make {shapes} within {_WAIT_SECONDS} s; start all workers in a folder that they share."
    )


def ensure_shapes(folder: str, config: Config, num_train: int = 2000, num_validation: int = 200) -> tuple[str, str]:
    """Makes and shards the data set for a recipe, if it is missing or its shards are for another canvas or other grids.

    The images' side is the smaller side of the recipe's canvas. Does not initialise TensorFlow's devices in the
    calling process.

    Args:
      folder: gets {train,validation}/ with images/ and shards/.
      config: the recipe: canvas and grids of the shards.
      num_train: images to train on.
      num_validation: images to evaluate on.
    Returns:
      The folders of shards, train and validation.
    """
    settings = dataclasses.replace(DEFAULT_SETTINGS, side=min(config.data.canvas))
    shard_settings = ShardSettings(config.data.canvas, config.model.grid)
    outputs = f"{folder}/{SPLITS[0]}/shards", f"{folder}/{SPLITS[1]}/shards"
    if all(_fits(output, config) for output in outputs):
        return outputs
    local = urls.scratch_folder(folder) if urls.is_remote(folder) else folder
    with exclusive(f"{local}/lock"):  # if two trainings start for the first time, only one makes the images
        for split, count, output in zip(SPLITS, (num_train, num_validation), outputs, strict=True):
            if not _fits(output, config):
                _remove_unfit(output)
                source = f"{folder}/{split}"
                make_shapes(source, split, count, settings)
                job = ShardJob(f"{source}/instances.json", f"{source}/images", output, shard_settings)
                shard_coco(job, processes=1)
    return outputs


def _fits(folder: str, config: Config) -> bool:
    """Whether a folder has finished shards of the canvas and grids of a recipe."""
    if not is_complete(folder):
        return False
    try:
        load_manifest(folder).check_fits(config.data.canvas, config.model.grid)
    except ConfigError:
        return False
    return True


def _remove_unfit(folder: str) -> None:
    """Shards of another recipe, such as an earlier version of the demo's; the drawn images are kept."""
    if is_complete(folder):
        log.info("%s was sharded for another canvas or other grids; sharding its images again.", folder)
        file_io.remove(f"{folder}/{MANIFEST}")  # first: without the manifest the folder counts as missing
        file_io.remove_folder(folder)
