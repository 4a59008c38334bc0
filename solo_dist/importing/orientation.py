"""EXIF or TIFF orientation: size of an image as stored and upright, and masks from one to the other.

Annotation tools show images upright and write coordinates of the upright image. COCO's readers, the shard tool among
them, take pixels as stored, unless the json gives the size of the upright image. Only the size in the json shows which
is meant. So an image turned by a quarter gets upright masks and the upright size in the json. If an image is mirrored,
upside down, or turned but square, both sizes are equal, and its masks are written on the pixels as stored.
"""

import dataclasses
from typing import Any

import numpy as np

from solo_dist.data.image_io import SIDEWAYS, open_image
from solo_dist.importing.dataset import decode, encode


@dataclasses.dataclass(frozen=True)
class ImageSize:
    """Size of an image file in pixels, and how it is to be turned."""

    stored: tuple[int, int]
    """Height, width."""
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Height, width after turning."""
        return self.stored[::-1] if self.orientation in SIDEWAYS else self.stored


def size_of(data: bytes) -> ImageSize:
    """Size of an encoded image, of which the header is enough. Raises Unusable if it does not decode."""
    opened = open_image(data)
    return ImageSize(opened.stored, opened.orientation)


def stored_in_coco(rle: dict[str, Any], orientation: int) -> dict[str, Any]:
    """An upright mask as it is written into a COCO json (see the head of this file)."""
    return _turned(rle, orientation, to_stored=True) if _needs_turn(rle, orientation) else rle


def read_from_coco(rle: dict[str, Any], orientation: int) -> dict[str, Any]:
    """The reverse of `stored_in_coco`."""
    return _turned(rle, orientation, to_stored=False) if _needs_turn(rle, orientation) else rle


def upright(rle: dict[str, Any], orientation: int) -> dict[str, Any]:
    """A mask on the pixels as stored -> the mask on the upright image."""
    return _turned(rle, orientation, to_stored=False)


def _needs_turn(rle: dict[str, Any], orientation: int) -> bool:
    height, width = rle["size"]
    return orientation != 1 and (orientation not in SIDEWAYS or height == width)


def _turned(rle: dict[str, Any], orientation: int, to_stored: bool) -> dict[str, Any]:
    """EXIF 2.32, table 6: which side of the stored image is the top of the upright one, and which is its left."""
    if orientation == 1:
        return rle
    mask = decode(rle)
    if orientation in SIDEWAYS and not to_stored:
        mask = mask.T
    if orientation in (3, 4, 7, 8):
        mask = mask[::-1]
    if orientation in (2, 3, 6, 7):
        mask = mask[:, ::-1]
    if orientation in SIDEWAYS and to_stored:
        mask = mask.T
    return encode(np.ascontiguousarray(mask))
