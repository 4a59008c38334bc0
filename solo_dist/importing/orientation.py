"""EXIF orientation: size of an image as stored and upright, and masks from one to the other.

Annotation tools show images upright and write coordinates of the upright image. COCO's readers, the shard tool among
them, take pixels as stored, unless the json gives the size of the upright image. Only the size in the json shows which
is meant. So an image turned by a quarter gets upright masks and the upright size in the json. If an image is mirrored,
upside down, or turned but square, both sizes are equal, and its masks are written on the pixels as stored.
"""

import dataclasses
import io
from typing import Any

import numpy as np
import PIL.Image

from solo_dist.errors import Unusable
from solo_dist.importing.dataset import decode, encode

_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNED = (5, 6, 7, 8)


@dataclasses.dataclass(frozen=True)
class ImageSize:
    """Size of an image file in pixels, and how it is to be turned."""

    stored: tuple[int, int]
    """Height, width."""
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Height, width after turning."""
        return self.stored[::-1] if self.orientation in _QUARTER_TURNED else self.stored


def size_of(data: bytes) -> ImageSize:
    """Size of an encoded image. Raises Unusable if it does not decode."""
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            # Pillow turns TIFF images itself while it loads them; the size is that of the turned image already.
            orientation = 1 if image.format == "TIFF" else image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:  # the decoders of a dozen formats raise many kinds of errors
        raise Unusable("image does not decode", str(error)[:100]) from error
    return ImageSize((height, width), orientation if orientation in range(1, 9) else 1)


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
    return orientation != 1 and (orientation not in _QUARTER_TURNED or height == width)


def _turned(rle: dict[str, Any], orientation: int, to_stored: bool) -> dict[str, Any]:
    """EXIF 2.32, table 6: which side of the stored image is the top of the upright one, and which is its left."""
    if orientation == 1:
        return rle
    mask = decode(rle)
    if orientation in _QUARTER_TURNED and not to_stored:
        mask = mask.T
    if orientation in (3, 4, 7, 8):
        mask = mask[::-1]
    if orientation in (2, 3, 6, 7):
        mask = mask[:, ::-1]
    if orientation in _QUARTER_TURNED and to_stored:
        mask = mask.T
    return encode(np.ascontiguousarray(mask))
