"""Reading COCO instance files, checked entry by entry: every entry that cannot be used has a reason.

A file that is not COCO raises CocoError. An entry that is unusable becomes a Rejection, and the others are still read.
An entry that is used, but seems to say something else than it means, has notices. reasons.py has the flag that helps
with each reason.
"""

import dataclasses
import json
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from solo_dist.coco_values import boolean, identifier, is_absent, number, numbers, shown
from solo_dist.data.sharding.boxes import misfit
from solo_dist.data.sharding.coco_json import CocoError, stream_arrays
from solo_dist.data.sharding.segmentations import Mask, read_mask
from solo_dist.errors import Unusable
from solo_dist.masks.rle import MAX_SIDE

TOO_SMALL_PIECE = "piece is too small in its tile"
"""Why a part of a mask that was cut by a tile is not trained on; see tiles.py."""
NUMBER = "number"
"""Key of a raw annotation: its place in the file, from 1. It is its id from here on: ids in files serve nothing."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What to make of entries that can be taken in more than one way; each field is a flag of the shard tool."""

    crowd: str = "crowd"
    """What iscrowd means. instance: nothing, such masks are objects like others."""
    boxes: str = "json"
    """from_masks: boxes and areas of the json are not looked at."""
    sizes: str = "auto"
    """Height and width of images. auto: the json's, or the file's if they are missing or exchanged; json; files."""
    orientation: str = "auto"
    """Which pixels masks are on. auto: upright if the json has the size of the turned image; upright; stored."""
    drop_empty_categories: bool = False


@dataclasses.dataclass(frozen=True)
class Rejection:
    """An annotation or image that is not in the records, or is in them but has a notice."""

    kind: str
    """annotation or image."""
    id: Any
    file: str
    """File name of the image; empty if it is not known."""
    reason: str
    detail: str = ""
    number: int = 0
    """Place of the annotation in the file, from 1; 0: it is an image, or the place is not known."""


@dataclasses.dataclass(frozen=True, slots=True)
class CocoImage:
    """An entry of `images`; there can be millions in memory."""

    id: int
    file_name: str
    height: int
    """0, and so the width: the json does not say."""
    width: int
    absent: tuple[int, ...] | None = None
    """LVIS: ids of categories that are not in the image; None: all that have no annotation in it are not."""
    unfinished: tuple[int, ...] = ()
    """LVIS: ids of categories of which some objects may have no annotation."""

    def to_coco(self) -> dict[str, Any]:
        """The entry of a COCO or LVIS json."""
        values = {"id": self.id, "file_name": self.file_name, "height": self.height, "width": self.width}
        if self.absent is None:
            return values
        return values | {"neg_category_ids": self.absent, "not_exhaustive_category_ids": self.unfinished}


@dataclasses.dataclass(frozen=True)
class Annotation:
    """An entry of `annotations` whose mask belongs to its image."""

    id: int
    """Its place in the file, from 1."""
    category: int
    """Class 0..C-1."""
    bbox: tuple[float, float, float, float]
    """x, y, width, height in pixels of the original image."""
    area: float
    rle: dict
    """Compressed RLE of the whole instance."""
    untrainable: str
    """Reason not to train on it (crowd, ...); empty: train. Evaluation takes all."""
    notices: tuple[str, ...] = ()
    """What seems to be wrong with it."""


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Images and categories of a COCO file, without its annotations."""

    images: list[CocoImage]
    categories: list[dict[str, Any]]
    """{"id", "name"}, by ascending id: the position is the class, whatever the order in the file."""
    rejected: list[Rejection]


class CatalogueBuilder:
    """Collects the images and categories of a file, entry by entry, in the order of the file."""

    def __init__(self, path: str):
        self.images: dict[int, CocoImage] = {}
        """Those that can be used, by id."""
        self.rejected: list[Rejection] = []
        self._path = path
        self._categories: list[Any] = []

    def add(self, name: str, entry: Any) -> None:
        """Takes an entry of `images` or `categories`, whichever `name` says."""
        if name == "categories":
            self._categories.append(entry)
            return
        try:
            image = _image_of(entry)
            if image.id in self.images:
                raise Unusable("duplicate image id")
            self.images[image.id] = image
        except Unusable as error:
            known = entry if isinstance(entry, dict) else {}
            file = str(known.get("file_name", ""))
            self.rejected.append(Rejection("image", known.get("id"), file, str(error), error.detail))

    def check_images(self) -> None:
        """Raises CocoError if there is no image that can be used."""
        if not self.images:
            why = self.rejected[0].reason if self.rejected else "its images list is empty"
            raise CocoError(f"{self._path} has no usable image; {why}.")

    def frequencies(self) -> dict[int, str]:
        """LVIS: r, c or f, for rare, common and frequent, by the id of the category; empty if a category has none."""
        found = {entry["id"]: entry.get("frequency") for entry in self._categories}
        return found if all(value in ("r", "c", "f") for value in found.values()) else {}

    def categories(self, named: set[int] | None = None) -> list[dict[str, Any]]:
        """As in `Catalogue`; only those of the given ids. Raises CocoError if there is none, or one is not usable."""
        kept = _categories_of(self._categories, self._path)
        if named is not None:
            kept = [category for category in kept if category["id"] in named]
            if not kept:
                raise CocoError(f"{self._path}: no annotation is of one of its categories.")
        return kept


def read_catalogue(path: str, drop_empty_categories: bool = False) -> Catalogue:
    """Reads images and categories; entries of images that cannot be used are in `rejected`.

    Args:
      path: of the json.
      drop_empty_categories: leave out the categories that no annotation names.
    Raises:
      CocoError: the file does not exist, is not json, or is not COCO instances.
    """
    builder = CatalogueBuilder(path)
    named: set[int] = set()
    for name, entry in stream_arrays(path):
        if name != "annotations":
            builder.add(name, entry)
        elif drop_empty_categories:
            named |= named_category(entry)
    builder.check_images()
    categories = builder.categories(named if drop_empty_categories else None)
    return Catalogue(list(builder.images.values()), categories, builder.rejected)


def named_category(annotation: Any) -> set[int]:
    """The id of the category of a raw annotation; nothing if it has none that can be one."""
    known = annotation if isinstance(annotation, dict) else {}
    try:
        return {identifier(known.get("category_id"), "category_id")}
    except Unusable:
        return set()


def read_annotations(path: str, images: Container[int]) -> Iterator[dict[str, Any] | Rejection]:
    """Annotations in the order of the file, raw but with NUMBER and a usable image_id, or a Rejection for each."""
    entries = (entry for name, entry in stream_arrays(path) if name == "annotations")
    for count, entry in enumerate(entries, 1):
        yield numbered(entry, count, images)


def numbered(entry: Any, number: int, images: Container[int]) -> dict[str, Any] | Rejection:
    """A raw annotation with its NUMBER and a usable image_id, or why it belongs to none of the images, by their ids."""
    if not isinstance(entry, dict):
        return Rejection("annotation", None, "", "annotation is not an object")
    try:
        image = identifier(entry.get("image_id"), "image_id")
    except Unusable as error:
        return Rejection("annotation", entry.get("id"), "", str(error), error.detail)
    if image not in images:
        return Rejection("annotation", entry.get("id"), "", "no such image", f"image_id {image}")
    return {**entry, "image_id": image, NUMBER: number}


def clean_annotation(
    raw: dict[str, Any], image: CocoImage, class_of: dict[int, int], reading: Reading = Reading()
) -> Annotation:
    """Checks a raw annotation of an image and turns its mask into RLE.

    Official behaviour (quirk 7): crowd, ignore, area <= 0, width or height below 1 are not trained on. An area or bbox
    that is absent is taken from the mask.

    Raises:
      Unusable: with the reason; such an annotation cannot be evaluated either.
    """
    category = _category_of(raw, class_of)
    if not image.height:
        raise Unusable("image size is not known")
    mask = read_mask(raw.get("segmentation"), image.height, image.width)
    from_mask = coco_mask.toBbox(mask.rle).tolist()
    bbox, area = from_mask, float(coco_mask.area(mask.rle))
    if reading.boxes == "json":
        bbox, area = _box_and_area(raw, bbox, area)
    crowd = boolean(raw.get("iscrowd"), "iscrowd") and reading.crowd == "crowd"
    return Annotation(
        id=raw.get(NUMBER, 0),
        category=category,
        bbox=tuple(map(float, bbox)),  # type: ignore[arg-type]
        area=float(area),
        rle=mask.rle,
        untrainable=_reason_not_to_train(crowd, boolean(raw.get("ignore"), "ignore"), bbox, area),
        notices=tuple(_notices(mask, bbox, from_mask, image)),
    )


def _category_of(raw: dict[str, Any], class_of: dict[int, int]) -> int:
    try:
        category = identifier(raw.get("category_id"), "category_id")
    except Unusable as error:
        raise Unusable(f"unknown category: {error}", error.detail) from error
    if category not in class_of:
        raise Unusable("unknown category", f"category_id {category}")
    return class_of[category]


def _box_and_area(raw: dict[str, Any], bbox: list[float], area: float) -> tuple[list[float], float]:
    """Those of the json, or the given ones of the mask if it has none."""
    if not is_absent(raw.get("bbox")):
        read = numbers(raw["bbox"], 4)
        if read is None:
            raise Unusable("bbox is not four finite numbers", shown(raw["bbox"]))
        bbox = read
    if not is_absent(raw.get("area")):
        given = number(raw["area"])
        if given is None:
            raise Unusable("area is not a finite number", shown(raw["area"]))
        area = given
    return bbox, area


def _notices(mask: Mask, bbox: list[float], from_mask: list[float], image: CocoImage) -> Iterator[str]:
    x, y, width, height = from_mask
    if wrong := misfit(bbox, [mask.extent, (x, y, x + width, y + height)]):
        yield wrong
    if mask.reaches_out(image.height, image.width):
        yield "mask reaches out of the image and is cut off"
    if mask.crossed:
        yield "outline crosses itself"
    for reason in dict.fromkeys(mask.left_out):
        yield f"a part of the mask is left out: {reason}"


def _image_of(entry: Any) -> CocoImage:
    if not isinstance(entry, dict):
        raise Unusable("image is not an object")
    number_of_image = identifier(entry.get("id"), "image id")
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        raise Unusable("image has no file_name")
    sides = [_side(entry.get(name)) for name in ("height", "width")]
    height, width = sides if all(sides) else (0, 0)
    absent = _categories_said(entry, "neg_category_ids")
    return CocoImage(
        number_of_image,
        entry["file_name"],
        height,
        width,
        absent,
        _categories_said(entry, "not_exhaustive_category_ids") or (),
    )


def _categories_said(entry: dict[str, Any], name: str) -> tuple[int, ...] | None:
    """What an entry of LVIS says about categories; None: nothing."""
    if is_absent(entry.get(name)):
        return None
    if not isinstance(entry[name], list):
        raise Unusable(f"{name} of the image are not a list", shown(entry[name]))
    return tuple(identifier(number, f"a number of {name}") for number in entry[name])


def _side(value: Any) -> int:
    """Pixels; 0: the json does not say."""
    side = 0 if is_absent(value) else number(value)
    if side is None or side != int(side) or not 0 <= side <= MAX_SIDE:
        raise Unusable(f"image height or width is not an integer from 1 to {MAX_SIDE}", shown(value))
    return int(side)


def _categories_of(entries: list[Any], path: str) -> list[dict[str, Any]]:
    categories: dict[int, str] = {}
    for entry in entries:
        try:
            category, name = identifier(entry["id"], "id"), entry["name"]
        except (Unusable, TypeError, KeyError):
            category, name = 0, None
        if not isinstance(name, str):
            raise CocoError(f"{path}: the category {json.dumps(entry)[:100]} needs an integer id and a name.")
        if category in categories:
            raise CocoError(f"{path}: two categories have the id {category}.")
        categories[category] = name
    if not categories:
        raise CocoError(f"{path} has no categories; add at least one with an id and a name.")
    return [{"id": number, "name": name} for number, name in sorted(categories.items())]


def _reason_not_to_train(crowd: bool, ignore: bool, bbox: list[float], area: float) -> str:
    if crowd:
        return "crowd"
    if ignore:
        return "ignore"
    if area <= 0:
        return "area not above 0"
    if bbox[2] < 1 or bbox[3] < 1:
        return "box narrower or lower than 1 pixel"
    return ""


def official_boxes(boxes_of_json: Iterable[Sequence[float]]) -> np.ndarray:
    """x, y, width, height -> float32 [m, 4] x1, y1, x2, y2, the last pixels inclusive: the official x + width - 1."""
    boxes = np.array([*boxes_of_json], np.float32).reshape(-1, 4)
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:] - 1
    return boxes
