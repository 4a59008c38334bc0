"""What a COCO json, or a folder of shards, says about images and objects: the basis of every choice."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from solo_dist.data.cells import ImageObjects, Placed, place
from solo_dist.data.schema import load_manifest
from solo_dist.data.sharding.annotation import Annotation, clean_annotation
from solo_dist.data.sharding.boxes import official_boxes
from solo_dist.data.sharding.catalogue import Catalogue, read_annotations, read_catalogue
from solo_dist.data.sharding.coco_image import CocoImage, read_image
from solo_dist.data.sharding.rejection import Rejection
from solo_dist.errors import DataError, Unusable
from solo_dist.inference.coco_metrics import load_annotations
from solo_dist.storage import file_io


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    """An image and its objects that are trained on, in the order of the file; that order decides collisions."""

    height: int
    width: int
    objects: tuple[Annotation, ...]


@dataclasses.dataclass(frozen=True)
class Facts:
    """A data set."""

    sources: tuple[str, ...]
    """The files or folders that were read."""
    images: tuple[LabelledImage, ...]
    """The images that are looked at: all, or an even sample."""
    num_images: int
    """Images of known size, whether they are looked at or not."""
    categories: tuple[str, ...]
    without_size: int
    """Images whose size is not in the json; they are not looked at."""
    left_out: int
    """Annotations of the images looked at that the shard tool would not train on."""

    @property
    def num_objects(self) -> int:
        """Objects of the images looked at."""
        return sum(len(image.objects) for image in self.images)

    @property
    def most_objects(self) -> int:
        """Objects of the image that has the most."""
        return max(len(image.objects) for image in self.images)

    @property
    def sizes(self) -> np.ndarray:
        """int [images, 2], heights and widths."""
        return np.array([(image.height, image.width) for image in self.images])

    def placed_on(self, canvas: tuple[int, int]) -> Placed:
        """All objects on a canvas."""
        return place(map(_image_objects, self.images), canvas)


def _image_objects(image: LabelledImage) -> ImageObjects:
    boxes = official_boxes(one.bbox for one in image.objects)
    return ImageObjects((image.height, image.width), [one.rle for one in image.objects], boxes)


def read_facts(sources: Sequence[str], most_images: int) -> Facts:
    """Reads COCO jsons or folders of shards.

    Args:
      sources: paths or URLs; several are taken as one data set, with categories of the same name as one.
      most_images: images to look at, spread evenly; 0: all.
    Raises:
      DataError: a source cannot be read, or has no object to train on.
    """
    images: list[LabelledImage] = []
    categories: dict[str, None] = {}
    num_images = without_size = left_out = 0
    for source in sources:
        catalogue, entries = _read(source.rstrip("/"))
        categories.update(dict.fromkeys(category["name"] for category in catalogue.categories))
        known = [image for image in catalogue.images if image.height]
        without_size += len(catalogue.images) - len(known)
        num_images += len(known)
        chosen = _spread(known, most_images)
        found, rejected = _labelled(chosen, catalogue, entries)
        images += found
        left_out += rejected
    facts = Facts(tuple(sources), tuple(images), num_images, tuple(categories), without_size, left_out)
    if not facts.num_objects:
        missing = f"; {without_size} images have no size in the json" if without_size else ""
        raise DataError(f"{', '.join(sources)}: no object to train on{missing}. solo-dist import says what is wrong.")
    return facts


def _read(source: str) -> tuple[Catalogue, Iterable[dict[str, Any] | Rejection]]:
    """Images and categories, and the raw annotations with usable image ids."""
    if not file_io.is_folder(source):
        catalogue = read_catalogue(source)
        return catalogue, read_annotations(source, {image.id: image for image in catalogue.images})
    content = load_annotations(load_manifest(source).annotations)
    images = [read_image(image) for image in content["images"]]
    return Catalogue(images, content["categories"], []), content["annotations"]


def _spread(images: list[CocoImage], most: int) -> list[CocoImage]:
    if not most or len(images) <= most:
        return images
    return [images[place] for place in np.linspace(0, len(images) - 1, most).astype(int)]


def _labelled(
    chosen: Sequence[CocoImage], catalogue: Catalogue, entries: Iterable[dict[str, Any] | Rejection]
) -> tuple[list[LabelledImage], int]:
    """The chosen images with their objects, and how many annotations of theirs are not trained on."""
    images = {image.id: image for image in chosen}
    class_of = {category["id"]: number for number, category in enumerate(catalogue.categories)}
    objects: dict[int, list[Annotation]] = {image.id: [] for image in chosen}
    left_out = 0
    for annotation in _trained(entries, images, class_of):
        if annotation is None:
            left_out += 1
        else:
            objects[annotation[0]].append(annotation[1])
    return [LabelledImage(image.height, image.width, tuple(objects[image.id])) for image in chosen], left_out


def _trained(
    entries: Iterable[dict[str, Any] | Rejection], images: dict[int, CocoImage], class_of: dict[int, int]
) -> Iterator[tuple[int, Annotation] | None]:
    """Image id and annotation of each that the shard tool trains on; None: it leaves the annotation out."""
    for entry in entries:
        if isinstance(entry, Rejection):
            yield None
        elif entry["image_id"] in images:
            try:
                annotation = clean_annotation(entry, images[entry["image_id"]], class_of)
            except Unusable:
                yield None
                continue
            yield None if annotation.untrainable else (entry["image_id"], annotation)
