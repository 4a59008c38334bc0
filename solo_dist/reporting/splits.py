"""Folders of shards as columns, for the report of a data set: training, validation and so on, with shared categories.

    splits = read_splits(["mine/shards/train", "mine/shards/validation"])
    splits[0].truths.category, splits[0].canvas_side

Masks are those of the original images, which evaluation uses too; crowds are among them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from solo_dist.data.schema import Manifest, load_manifest
from solo_dist.data.sharding.tiles import place_in_file
from solo_dist.errors import ConfigError
from solo_dist.inference.coco_metrics import load_annotations
from solo_dist.masks import rle
from solo_dist.reporting.instances import Truths, load_instances


@dataclasses.dataclass(frozen=True)
class Split:
    """A folder of shards. Legend: I images, G instances, crowds among them."""

    name: str
    """The end of the folder's path."""
    manifest: Manifest
    annotations: Mapping[str, Any]
    """The COCO json."""
    images: list[Mapping[str, Any]]
    """Entries of the COCO json by id; `truths.image` is a position in this list."""
    truths: Truths
    """Categories are positions in the list that all splits share."""
    entry: np.ndarray
    """int64 [G], the annotation's place in the file that was sharded, from 1."""
    boxes: np.ndarray
    """float64 [G, 4], x, y, width, height around each mask, in pixels of the original image."""

    @property
    def sizes(self) -> np.ndarray:
        """int64 [I, 2], height and width of the images."""
        return np.array([(image["height"], image["width"]) for image in self.images]).reshape(-1, 2)

    @property
    def canvas_side(self) -> np.ndarray:
        """float64 [G], square root of the mask's area after the image is fitted into the canvas, in pixels."""
        scale = (np.array(self.manifest.canvas) / self.sizes).min(axis=1)
        return np.sqrt(rle.areas_of_rles(self.truths.masks)) * scale[self.truths.image]

    @property
    def instances_of_image(self) -> np.ndarray:
        """int64 [I], crowds left out."""
        return np.bincount(self.truths.image[~self.truths.crowd], minlength=len(self.images))


def read_splits(folders: Sequence[str]) -> tuple[list[Split], list[str]]:
    """Reads folders of shards, and the names of the categories of all of them.

    Raises:
      ConfigError: a folder is given twice.
      ShardError: it is no complete folder of shards.
      AnnotationsError: its annotations cannot be read.
    """
    folders = [folder.rstrip("/") for folder in folders]
    if len(set(folders)) < len(folders):
        raise ConfigError("--shards names a folder twice; name each folder once.")
    manifests = [load_manifest(folder) for folder in folders]
    categories = list(dict.fromkeys(c["name"] for manifest in manifests for c in manifest.categories))
    names = short_names([manifest.folder for manifest in manifests])
    return [_read(manifest, name, categories) for manifest, name in zip(manifests, names, strict=True)], categories


def short_names(folders: Sequence[str]) -> list[str]:
    """The ends of the paths, with as many parts as make all of them different."""
    parts = [folder.split("/") for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(folders)


def _read(manifest: Manifest, name: str, categories: Sequence[str]) -> Split:
    annotations = load_annotations(manifest.annotations)
    images = sorted(annotations["images"], key=lambda image: image["id"])
    truths, _ = load_instances(annotations, [], [image["id"] for image in images])
    place = np.array([categories.index(category["name"]) for category in annotations["categories"]], np.int32)
    truths = dataclasses.replace(truths, category=place[truths.category])
    by_image = sorted(annotations["annotations"], key=lambda entry: entry["image_id"])  # stable, as load_instances
    entry = np.array([annotation["id"] for annotation in by_image], np.int64)
    if manifest.tiling:
        entry = place_in_file(entry)
    boxes = np.array(coco_mask.toBbox(truths.masks), float).reshape(-1, 4)
    return Split(name, manifest, annotations, images, truths, entry, boxes)
