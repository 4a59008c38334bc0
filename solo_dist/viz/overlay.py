"""Pictures for people: instances drawn over a photograph, and the panel that TensorBoard shows during training."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

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


def overlay(picture: np.ndarray, masks: np.ndarray, labels: Sequence[str], enlarge: bool = True) -> PIL.Image.Image:
    """Coloured masks with outlines and labels over a picture.

    Args:
      picture: uint8 [H0,W0,3].
      masks: bool [n,H0,W0], the most certain first.
      labels: n texts, for example "cat 0.93"; an empty one draws no label.
      enlarge: small pictures are enlarged a whole number of times, so that labels can be read.
    """
    factor = max(1, _SMALLEST_LONG_SIDE // max(picture.shape[:2])) if enlarge else 1
    canvas = picture.repeat(factor, axis=0).repeat(factor, axis=1).astype(np.float32)
    masks = masks.repeat(factor, axis=1).repeat(factor, axis=2)
    thickness = max(1, round(max(canvas.shape[:2]) / 400))
    # Large ones first, so that small instances in front of them stay visible.
    order = sorted(range(len(masks)), key=lambda i: -int(masks[i].sum()))
    for i in order:
        paint_mask(canvas, masks[i], colour_of(i), thickness)
    image = PIL.Image.fromarray(canvas.round().astype(np.uint8))
    _write_labels(image, masks, labels)
    return image


def paint_mask(canvas: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], thickness: int) -> None:
    """Blends a mask, bool [H,W], into float32 [H,W,3] in place, with a solid outline inside its edge."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    part, mask = canvas[box], mask[box]
    part[mask] = (1 - OPACITY) * part[mask] + OPACITY * np.array(colour, np.float32)
    inner = np.pad(mask, 1)  # the edge of the picture counts as an outline too
    for _ in range(thickness):
        inner[1:-1, 1:-1] = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    part[mask & ~inner[1:-1, 1:-1]] = colour


def _write_labels(image: PIL.Image.Image, masks: np.ndarray, labels: Sequence[str]) -> None:
    """Writes each label near the top of its mask; in a crowd, one that would hide another is left out."""
    draw = PIL.ImageDraw.Draw(image)
    height = min(22, max(11, round(max(image.size) / 45)))
    font = PIL.ImageFont.load_default(size=height)
    taken: list[Box] = []
    for i, (mask, label) in enumerate(zip(masks, labels, strict=True)):
        if not label or not mask.any():
            continue
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
    mask: np.ndarray,
    size: tuple[float, float],
    picture: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """A box of `size`, width and height: above the mask, at its top, in its middle, or below it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left = rows[0], rows[-1], columns[0]
    middle_y, middle_x = (rows[0] + rows[-1] - size[1]) / 2, (columns[0] + columns[-1] - size[0]) / 2
    wishes = [(left, top - size[1]), (left, top), (middle_x, middle_y), (left, bottom - size[1]), (left, bottom)]
    boxes = []
    for x, y in wishes:
        x, y = np.clip(x, 0, max(0, picture[0] - size[0])), np.clip(y, 0, max(0, picture[1] - size[1]))
        boxes.append((float(x), float(y), float(x + size[0]), float(y + size[1])))
    return min(boxes, key=lambda box: sum(_common_area(box, other) for other in taken))


def _common_area(box: Box, other: Box) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(0.0, width) * max(0.0, height)


def panel(
    image: np.ndarray, target_masks: np.ndarray, predicted_masks: np.ndarray, labels: Sequence[str]
) -> np.ndarray:
    """Picture, target masks and predicted masks side by side for TensorBoard.

    Args:
      image: uint8 [H,W,3], the canvas.
      target_masks: bool [m,h,w], at a quarter of the canvas.
      predicted_masks: bool [n,h,w].
      labels: n texts for the predicted ones.

    Returns:
      uint8 [H',3W'+gaps,3], small canvases enlarged.
    """

    def full_size(masks: np.ndarray) -> np.ndarray:
        masks = np.asarray(masks, bool).reshape(-1, *masks.shape[-2:])
        stride = image.shape[0] // masks.shape[1]
        return masks.repeat(stride, axis=1).repeat(stride, axis=2)

    none = np.zeros([0, *image.shape[:2]], bool)
    views = [
        overlay(image, none, []),
        overlay(image, full_size(target_masks), [""] * len(target_masks)),
        overlay(image, full_size(predicted_masks), labels),
    ]
    gap = np.full([views[0].height, 8, 3], 255, np.uint8)
    parts = [np.asarray(view) for view in views]
    return np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1)


def training_panel(
    batch: Mapping[str, Any],
    detections: Mapping[str, Any],
    categories: Sequence[Mapping[str, Any]],
    mask_threshold: float,
    score_threshold: float = 0.3,
) -> np.ndarray:
    """The panel of the first image of a batch, without the padding of the canvas.

    Args:
      batch: image uint8 [B,H,W,3], image_size [B,2], masks bit-packed [B,M,h,w/8].
      detections: of that image at least, as `postprocess.detect` gives them.
      categories: {"name"} by class.
      mask_threshold: of the probability.
      score_threshold: least score of what is shown.
    """
    height, width = (int(side) for side in batch["image_size"][0])
    image = np.asarray(batch["image"][0])[:height, :width]
    target = np.unpackbits(np.asarray(batch["masks"][0]), axis=-1).astype(bool)
    scores, classes = np.asarray(detections["scores"][0]), np.asarray(detections["categories"][0])
    shown = int((scores >= score_threshold).sum())  # best first, padding has score 0
    predicted = np.asarray(detections["mask_probabilities"][0][:shown]) > mask_threshold
    labels = [f"{categories[classes[i]]['name']} {scores[i]:.2f}" for i in range(shown)]
    stride = batch["image"].shape[1] // target.shape[1]
    window = np.s_[:, : height // stride, : width // stride]
    return panel(image, target[target.any(axis=(1, 2))][window], predicted[window], labels)
