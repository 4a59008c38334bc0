"""Instances drawn over an image: colours, masks with outlines, and labels."""

import colorsys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw

from solo_dist.viz.fonts import font_for

OPACITY = 0.45
_SMALLEST_LONG_SIDE = 512
_GOLDEN_RATIO = 0.618034

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


def colour_of(index: int) -> tuple[int, int, int]:
    """A bright colour, clearly different from those of the indices nearby."""
    hue = (0.58 + index * _GOLDEN_RATIO) % 1.0
    lightness = (0.55, 0.45, 0.65)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def overlay(image: np.ndarray, masks: Iterable[np.ndarray], labels: Sequence[str]) -> PIL.Image.Image:
    """Coloured masks with outlines and labels over an image; a small one is enlarged, so that labels can be read.

    Args:
      image: uint8 [H0,W0,3].
      masks: bool [n,H0,W0], or n of [H0,W0] one after the other; the most certain first.
      labels: n texts, for example "cat 0.93"; an empty one draws no label.
    """
    factor = max(1, _SMALLEST_LONG_SIDE // max(image.shape[:2]))
    if factor > 1:
        image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    cropped = [_crop(mask, factor) for mask in masks]
    canvas = to_planes(image)
    thickness = max(1, round(max(image.shape[:2]) / 400))
    # Large ones first, so that small instances in front of them stay visible.
    for i in sorted(range(len(cropped)), key=lambda i: -np.count_nonzero(cropped[i].pixels)):
        _paint(canvas, cropped[i], colour_of(i), thickness)
    drawn = from_planes(canvas)
    _write_labels(drawn, cropped, labels)
    return drawn


def to_planes(image: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3] -> float32 [3,H,W]: NumPy paints a mask on planes eight times faster than on pixels of 3 values."""
    return image.transpose(2, 0, 1).astype(np.float32, order="C")


def from_planes(canvas: np.ndarray) -> PIL.Image.Image:
    """float32 [3,H,W] -> an RGB image, rounded."""
    return PIL.Image.merge("RGB", [PIL.Image.fromarray(plane) for plane in canvas.round().astype(np.uint8)])


class _Mask(NamedTuple):
    """The part of a mask that is inside the box around it."""

    y: int
    x: int
    pixels: np.ndarray
    """bool [h,w]; without a pixel if the mask is empty."""


def _crop(mask: np.ndarray, factor: int = 1) -> _Mask:
    """The mask, bool [H0,W0], enlarged by a factor. It holds a copy, not the whole mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return _Mask(0, 0, np.zeros([0, 0], bool))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    enlarged = part.repeat(factor, axis=0).repeat(factor, axis=1)
    return _Mask(factor * int(rows[0]), factor * int(columns[0]), enlarged)


def paint_mask(canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], thickness: int) -> None:
    """Blends a mask, bool [H,W], into float32 [3,H,W] in place, with a solid outline inside its edge."""
    _paint(canvas, _crop(mask), colour, thickness)


def _paint(canvas: np.ndarray, cropped: _Mask, colour: tuple[int, int, int], thickness: int) -> None:
    y, x, mask = cropped
    box = slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])
    inner = np.pad(mask, 1)  # the edge of the image counts as an outline too
    for _ in range(thickness):
        inner[1:-1, 1:-1] = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    outline = mask & ~inner[1:-1, 1:-1]
    for plane, value in zip(canvas, colour, strict=True):
        part = plane[box]
        np.copyto(part, (1 - OPACITY) * part + np.float32(OPACITY) * np.float32(value), where=mask)
        np.copyto(part, value, where=outline)


def _write_labels(image: PIL.Image.Image, masks: Sequence[_Mask], labels: Sequence[str]) -> None:
    """Writes each label near the top of its mask; in a crowd, one that would hide another is left out."""
    draw = PIL.ImageDraw.Draw(image)
    height = min(22, max(11, round(max(image.size) / 45)))
    taken: list[Box] = []
    for i, (mask, label) in enumerate(zip(masks, labels, strict=True)):
        if not label or not mask.pixels.size:
            continue
        font, label = font_for(label, height)
        left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
        size = (right - left + 8, bottom - top + 6)
        box = _place(mask, size, image.size, taken)
        if any(_common_area(box, other) > size[0] * size[1] / 2 for other in taken):
            continue
        taken.append(box)
        colour = colour_of(i)
        draw.rounded_rectangle(box, radius=4, fill=colour)
        bright = np.dot(colour, (0.299, 0.587, 0.114)) > 150
        draw.text((box[0] + 4 - left, box[1] + 3 - top), label, font=font, fill="black" if bright else "white")


def _place(
    mask: _Mask,
    size: tuple[float, float],
    image: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """A box of `size`, width and height: above the mask, at its top, in its middle, or below it."""
    (height, width), top, left = mask.pixels.shape, mask.y, mask.x
    bottom, right = top + height - 1, left + width - 1
    middle_y, middle_x = (top + bottom - size[1]) / 2, (left + right - size[0]) / 2
    corners = [(left, top - size[1]), (left, top), (middle_x, middle_y), (left, bottom - size[1]), (left, bottom)]
    boxes = []
    for x, y in corners:
        x, y = np.clip(x, 0, max(0, image[0] - size[0])), np.clip(y, 0, max(0, image[1] - size[1]))
        boxes.append((float(x), float(y), float(x + size[0]), float(y + size[1])))
    return min(boxes, key=lambda box: sum(_common_area(box, other) for other in taken))


def _common_area(box: Box, other: Box) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(0.0, width) * max(0.0, height)
