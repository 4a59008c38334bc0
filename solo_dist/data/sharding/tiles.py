"""An image and its masks cut into tiles, each of which is an image of its own in the shards.

Masks are cut to the pixel. A piece of an instance is too small if it has less than a tenth of the instance's pixels and
less than a hundredth of the tile's: nobody could say what it is. Such a piece is not trained on, and evaluation takes
it as a crowd, which is neither found nor missed.
"""

import dataclasses
import posixpath
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from pycocotools import mask as coco_mask

from solo_dist.data.sharding.annotation import Annotation
from solo_dist.data.sharding.images import EntryImage
from solo_dist.data.sharding.rejection import TOO_SMALL_PIECE
from solo_dist.data.tiling import Tiling, Window

_SHARE_OF_INSTANCE, _SHARE_OF_TILE = 0.1, 0.01
_IDS_AN_IMAGE = 1_000_000
"""More than an image can have tiles: ids of tiles and pieces are those of whole ones times this, plus the tile."""

_Ids = TypeVar("_Ids", int, np.ndarray)


def cut(
    read: EntryImage, annotations: Sequence[Annotation], tiling: Tiling, index: int
) -> Iterator[tuple[EntryImage, list[Annotation]]]:
    """Yields the tiles of an image, those without an instance too, with their annotations.

    Args:
      read: the image.
      annotations: of the image, crowds included.
      tiling: size and overlap of the tiles.
      index: number of the image in the data set.
    """
    windows = tiling.windows((read.entry.height, read.entry.width))
    pieces: list[list[Annotation]] = [[] for _ in windows]
    for annotation in annotations:
        for number, piece in _pieces(annotation, windows):
            pieces[number].append(piece)
    for number, window in enumerate(windows):
        entry = dataclasses.replace(
            read.entry,
            id=index * _IDS_AN_IMAGE + number,
            file_name=_name(read.entry.file_name, window),
            height=window.height,
            width=window.width,
        )
        corners = (window.x, window.y, window.x + window.width, window.y + window.height)
        yield EntryImage(entry, read.rgb.crop(corners), b"", ()), pieces[number]


def place_in_file(annotation_id: _Ids) -> _Ids:
    """The place of the whole annotation in the json, from 1, by the id of a piece; or an array of both."""
    return annotation_id // _IDS_AN_IMAGE


def _pieces(annotation: Annotation, windows: Sequence[Window]) -> Iterator[tuple[int, Annotation]]:
    """Number of the tile and the piece, for each tile that shows a pixel of the mask."""
    x, y, width, height = (int(value) for value in coco_mask.toBbox(annotation.rle))
    box, mask = Window(y, x, height, width), coco_mask.decode(annotation.rle)
    whole = int(coco_mask.area(annotation.rle))
    for number, window in enumerate(windows):
        if 0 in box.common(window)[2:]:
            continue
        part = mask[window.pixels]
        pixels = int(np.count_nonzero(part))
        if pixels:
            yield number, _piece(annotation, number, window, coco_mask.encode(np.asfortranarray(part)), pixels, whole)


def _piece(annotation: Annotation, number: int, window: Window, rle: dict, pixels: int, whole: int) -> Annotation:
    """The annotation in a tile. Cut masks have the box and the area of what is left of them, as cropped images do."""
    x, y, width, height = annotation.bbox
    bbox, area, untrainable = (x - window.x, y - window.y, width, height), annotation.area, annotation.untrainable
    if pixels < whole:
        bbox, area = tuple(coco_mask.toBbox(rle).tolist()), float(pixels)
        small = pixels < _SHARE_OF_INSTANCE * whole and pixels < _SHARE_OF_TILE * window.height * window.width
        untrainable = untrainable or (TOO_SMALL_PIECE if small else "")
    return dataclasses.replace(
        annotation,
        id=annotation.id * _IDS_AN_IMAGE + number,
        bbox=bbox,
        area=area,
        rle=rle,
        untrainable=untrainable,
        notices=(),
    )


def _name(file_name: str, window: Window) -> str:
    """The image's name with the corners of the tile: x and y of the first pixel, and those past the last one."""
    stem, suffix = posixpath.splitext(file_name)
    corners = (window.x, window.y, window.x + window.width, window.y + window.height)
    return "_".join([stem, *map(str, corners)]) + suffix
