"""Small images for a page: instances painted over their image, and close-ups of one instance, as data: URLs."""

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw
from pycocotools import mask as coco_mask

from solo_dist.viz.fonts import font_for
from solo_dist.viz.overlay import from_planes, paint_mask, to_planes

_CLOSE_UP_SIDE = 132
_QUALITY = 80

Colour = tuple[int, int, int]


class Part(NamedTuple):
    """An instance to paint."""

    rle: dict[str, Any]
    colour: Colour
    label: str


def painted(pixels: np.ndarray, parts: Iterable[Part], side: int) -> PIL.Image.Image:
    """An image, uint8 [h,w,3], with its long side scaled to `side`, and masks of any size with their labels."""
    large = scaled(pixels, side)
    canvas = to_planes(large)
    masks = [(_resized(part.rle, large.shape[:2]), part) for part in parts]
    for mask, part in sorted(masks, key=lambda pair: -int(pair[0].sum())):
        paint_mask(canvas, mask, part.colour, max(2, side // 250))
    image = from_planes(canvas)
    for mask, part in masks:
        _write(image, mask, part, max(12, side // 34))
    return image


def close_up(pixels: np.ndarray, rle: dict[str, Any], colour: Colour) -> PIL.Image.Image:
    """An instance cut out of its image, uint8 [h,w,3], with a margin around it."""
    mask = _resized(rle, pixels.shape[:2])
    top, left, bottom, right = _around(mask)
    large = scaled(pixels[top:bottom, left:right], _CLOSE_UP_SIDE)
    part = PIL.Image.fromarray(mask[top:bottom, left:right]).resize((large.shape[1], large.shape[0]))
    canvas = to_planes(large)
    paint_mask(canvas, np.asarray(part), colour, 2)
    return from_planes(canvas)


def scaled(pixels: np.ndarray, side: int) -> np.ndarray:
    """An image, uint8 [h,w,3], enlarged or reduced until its long side has `side` pixels."""
    factor = side / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.LANCZOS))


def side_by_side(images: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    """Two images of one height on one sheet."""
    gap = 8
    sheet = PIL.Image.new("RGB", (sum(i.width for i in images) + gap, images[0].height), "white")
    sheet.paste(images[0], (0, 0))
    sheet.paste(images[1], (images[0].width + gap, 0))
    return sheet


def jpeg(image: PIL.Image.Image) -> bytes:
    """The bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def url(image: PIL.Image.Image) -> str:
    """The image as an address that holds the image itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(image)).decode()}"


def _write(image: PIL.Image.Image, mask: np.ndarray, part: Part, size: int) -> None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows) or not part.label:
        return
    draw, (font, label) = PIL.ImageDraw.Draw(image), font_for(part.label, size)
    left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
    x = min(max(0, int(columns[0])), max(0, image.width - int(right - left) - 6))
    y = max(0, int(rows[0]) - int(bottom - top) - 4)
    draw.rounded_rectangle((x, y, x + right - left + 6, y + bottom - top + 4), radius=3, fill=part.colour)
    draw.text((x + 3 - left, y + 2 - top), label, font=font, fill="white")


def _resized(rle: dict[str, Any], size: tuple[int, ...]) -> np.ndarray:
    """Bool mask of another size, nearest pixel."""
    mask = PIL.Image.fromarray(coco_mask.decode(rle).astype(bool))
    return np.asarray(mask.resize((size[1], size[0]), PIL.Image.Resampling.NEAREST))


def _around(mask: np.ndarray) -> tuple[int, int, int, int]:
    """A square around a mask, with a margin: top, left, bottom, right inside the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, mask.shape[0], mask.shape[1]
    half = max(8, 0.75 * max(rows[-1] - rows[0], columns[-1] - columns[0]))
    y, x = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
    top, left = max(0, int(y - half)), max(0, int(x - half))
    return top, left, min(mask.shape[0], int(y + half) + 1), min(mask.shape[1], int(x + half) + 1)
