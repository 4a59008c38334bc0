"""Reading COCO instance files: streamed, checked entry by entry, and every entry that cannot be used has a reason.

The json is parsed element by element, so that a file of hundreds of megabytes takes little memory. A file that is not
COCO raises CocoError; an entry that is unusable becomes a Rejection and never stops the rest.
"""

import codecs
import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any, TypeGuard

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

from solo_dist.data.image_io import Unusable
from solo_dist.errors import DataError
from solo_dist.masks.rle import MAX_SIDE, segmentation_to_rle
from solo_dist.storage import file_io, urls

ARRAYS = ("images", "annotations", "categories")
_CHUNK = 1 << 22


class CocoError(DataError):
    """A file that is not COCO instances; the message names the file and the remedy."""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """An annotation or image that is not in the records."""

    kind: str
    """annotation or image."""
    id: Any
    file: str
    """File name of the image; empty where it is not known."""
    reason: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class CocoImage:
    """An entry of `images`."""

    id: int
    file_name: str
    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class Annotation:
    """An entry of `annotations` whose mask belongs to its image."""

    id: int
    category: int
    """Class 0..C-1."""
    bbox: tuple[float, float, float, float]
    """x, y, width, height in pixels of the original image."""
    area: float
    rle: dict
    """Compressed RLE of the whole instance."""
    untrainable: str
    """Reason not to train on it (crowd, ...); empty: train. Evaluation takes all."""


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Images and categories of a COCO file, without its annotations."""

    images: list[CocoImage]
    categories: list[dict[str, Any]]
    """{"id", "name"}, by ascending id: the position is the class, whatever the order in the file."""
    rejected: list[Rejection]


def read_catalogue(path: str) -> Catalogue:
    """Reads images and categories; entries of images that cannot be used are in `rejected`.

    Raises:
      CocoError: the file does not exist, is not json, or is not COCO instances.
    """
    images: dict[int, CocoImage] = {}
    rejected: list[Rejection] = []
    categories: list[Any] = []
    for name, entry in stream_arrays(path):
        if name == "categories":
            categories.append(entry)
        elif name == "images":
            try:
                image = _image_of(entry)
                if image.id in images:
                    raise Unusable("duplicate image id")
                images[image.id] = image
            except Unusable as error:
                known = entry if isinstance(entry, dict) else {}
                rejected.append(Rejection("image", known.get("id"), str(known.get("file_name", "")), str(error)))
    if not images:
        raise CocoError(
            f"{path} has no usable image; {rejected[0].reason if rejected else 'its images list is empty'}."
        )
    return Catalogue(list(images.values()), _categories_of(categories, path), rejected)


def read_annotations(path: str, images: dict[int, CocoImage]) -> Iterator[dict[str, Any] | Rejection]:
    """Annotations in the order of the file, raw but with usable ids, and a Rejection for each that has none."""
    seen: set[int] = set()
    for name, entry in stream_arrays(path):
        if name != "annotations":
            continue
        if not isinstance(entry, dict):
            yield Rejection("annotation", None, "", "annotation is not an object")
            continue
        number, image = entry.get("id"), entry.get("image_id")
        file = images[image].file_name if _is_id(image) and image in images else ""
        if not _is_id(number):
            yield Rejection("annotation", number, file, "annotation id is not an integer")
        elif number in seen:
            yield Rejection("annotation", number, file, "duplicate annotation id")
        elif not file:
            yield Rejection("annotation", number, "", "no such image", f"image_id {image}")
        else:
            seen.add(number)
            yield entry


def clean_annotation(raw: dict[str, Any], image: CocoImage, class_of: dict[int, int]) -> Annotation:
    """Checks a raw annotation of an image and turns its mask into RLE.

    Official behaviour (quirk 7): crowd, ignore, area <= 0, width or height below 1 are not trained on. An area or bbox
    that is absent is taken from the mask.

    Raises:
      Unusable: with the reason; such an annotation cannot be evaluated either.
    """
    category = raw.get("category_id")
    if not _is_id(category) or category not in class_of:
        raise Unusable("unknown category")
    try:
        rle = segmentation_to_rle(raw.get("segmentation"), image.height, image.width)
    except ValueError as error:
        raise Unusable(str(error)) from error
    if not int(coco_mask.area(rle)):
        raise Unusable("mask covers no pixel of the image")
    area = raw.get("area", float(coco_mask.area(rle)))
    bbox = raw.get("bbox", coco_mask.toBbox(rle).tolist())
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        raise Unusable("bbox is not four finite numbers")
    if not _is_number(area):
        raise Unusable("area is not a finite number")
    return Annotation(
        id=raw["id"],
        category=class_of[category],
        bbox=tuple(map(float, bbox)),  # type: ignore[arg-type]
        area=float(area),
        rle=rle,
        untrainable=_reason_not_to_train(raw, bbox, area),
    )


def stream_arrays(path: str) -> Iterator[tuple[str, Any]]:
    """Yields (name, element) of the arrays images, annotations and categories of a json object, in file order.

    Raises:
      CocoError: the file does not exist, cannot be read, is not json, or lacks one of the arrays.
    """
    if (not urls.is_remote(path) and tf.io.gfile.isdir(path)) or not file_io.exists(path):
        raise CocoError(f"There is no file {path}; give the COCO instances json.")
    seen = set()
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            for name, element in _JsonReader(file).arrays():
                if name not in seen and name in ARRAYS:
                    seen.add(name)
                if element is not _START:
                    yield name, element
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CocoError(f"{path} is not valid json: {error}.") from error
    except tf.errors.OpError as error:
        raise CocoError(f"{path} cannot be read: {error.message}.") from error
    except _NotCoco as error:
        raise CocoError(f"{path} is not a COCO instances file: {error}.") from error
    missing = [name for name in ARRAYS if name not in seen]
    if missing:
        raise CocoError(f"{path} is not a COCO instances file: it has no {' and no '.join(missing)}.")


class _NotCoco(ValueError):
    pass


_START = object()
"""Announces an array, which may be empty."""


class _JsonReader:
    """Decodes a json object from a binary file, holding one element of its arrays at a time."""

    def __init__(self, file: Any):
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._parse = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._ended = False

    def arrays(self) -> Iterator[tuple[str, Any]]:
        """(name, _START) for each of the arrays, then (name, element) for each of its elements."""
        if self._peek() != "{":
            raise _NotCoco("its top level is not an object")
        self._at += 1
        while self._peek() != "}":
            name = self._value()
            self._take(":")
            if name in ARRAYS:
                if self._peek() != "[":
                    raise _NotCoco(f"its {name} are not a list")
                yield name, _START
                yield from ((name, element) for element in self._elements())
            else:
                self._value()
            self._separator("}")
        self._at += 1
        if self._peek():
            raise json.JSONDecodeError("Extra data", self._text, self._at)

    def _elements(self) -> Iterator[Any]:
        self._at += 1
        while self._peek() != "]":
            yield self._value()
            self._separator("]")
        self._at += 1

    def _separator(self, closing: str) -> None:
        if self._peek() != closing:
            self._take(",")
            if self._peek() == closing:
                raise json.JSONDecodeError("Expecting a value", self._text, self._at)

    def _take(self, wanted: str) -> None:
        if self._peek() != wanted:
            raise json.JSONDecodeError(f"Expecting {wanted!r}", self._text, self._at)
        self._at += 1

    def _peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._read_more(_CHUNK):
                return ""

    def _value(self) -> Any:
        self._peek()
        chunk = _CHUNK
        while True:
            try:
                value, end = self._parse(self._text, self._at)
                # A number could go on in the next chunk: "1", "1." and "1e" all decode as 1.
                if self._ended or (end < len(self._text) and self._text[end] not in "0123456789.eE+-"):
                    self._at = end
                    return value
            except json.JSONDecodeError:
                if self._ended:
                    raise
            self._read_more(chunk)
            chunk *= 2

    def _read_more(self, size: int) -> bool:
        data = self._file.read(size)
        self._ended = not data
        self._text = self._text[self._at :] + self._decode(data, self._ended)
        self._at = 0
        return bool(data)


def _image_of(entry: Any) -> CocoImage:
    if not isinstance(entry, dict):
        raise Unusable("image is not an object")
    if not _is_id(entry.get("id")):
        raise Unusable("image id is not an integer")
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        raise Unusable("image has no file_name")
    sides = []
    for name in ("height", "width"):
        side = entry.get(name)
        if not _is_number(side) or side != int(side) or not 0 < side <= MAX_SIDE:
            raise Unusable(f"image height or width is not an integer from 1 to {MAX_SIDE}")
        sides.append(int(side))
    return CocoImage(entry["id"], entry["file_name"], *sides)


def _categories_of(entries: list[Any], path: str) -> list[dict[str, Any]]:
    categories: dict[int, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not isinstance(entry.get("name"), str):
            raise CocoError(f"{path}: the category {json.dumps(entry)[:100]} needs an integer id and a name.")
        if entry["id"] in categories:
            raise CocoError(f"{path}: two categories have the id {entry['id']}.")
        categories[entry["id"]] = entry["name"]
    if not categories:
        raise CocoError(f"{path} has no categories; add at least one with an id and a name.")
    return [{"id": number, "name": name} for number, name in sorted(categories.items())]


def _reason_not_to_train(raw: dict[str, Any], bbox: list[float], area: float) -> str:
    if raw.get("iscrowd"):
        return "crowd"
    if raw.get("ignore"):
        return "ignore"
    if area <= 0:
        return "area not above 0"
    if bbox[2] < 1 or bbox[3] < 1:
        return "box narrower or lower than 1 pixel"
    return ""


def _is_id(value: Any) -> TypeGuard[int]:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and abs(value) < 1e15 and math.isfinite(value)


def official_boxes(annotations: list[Annotation]) -> np.ndarray:
    """Boxes float32 [m, 4] x1, y1, x2, y2, the last pixels inclusive: the official x + width - 1."""
    boxes = np.array([annotation.bbox for annotation in annotations], np.float32).reshape(-1, 4)
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:] - 1
    return boxes
