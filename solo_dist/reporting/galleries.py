"""Images for the page: the worst and the most typical ones, truth beside prediction, and close-ups by category.

Colours say what became of an instance; they are those of the page's legend.
"""

import base64
import dataclasses
import io
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import tensorflow as tf
from pycocotools import mask as coco_mask

from solo_dist.config import DataConfig
from solo_dist.data.input.cache import RemoteShards, open_shards
from solo_dist.data.schema import Manifest
from solo_dist.reporting.analysis import Analysis
from solo_dist.reporting.errors_by_kind import KINDS, Kind
from solo_dist.storage import file_io
from solo_dist.viz.overlay import paint_mask

IMAGES_OF_A_KIND = 6
_CATEGORIES, _CLOSE_UPS = 12, 6
_SIDE, _FULL_SIDE, _CLOSE_UP_SIDE = 400, 1024, 132
_QUALITY = 80

COLOURS = {
    "found": (22, 163, 74),
    "confused": (234, 138, 0),
    "inaccurate": (37, 99, 235),
    "missed": (220, 38, 38),
    "crowd": (130, 130, 130),
    "false": (219, 39, 119),
}
"""What an instance or a detection is at the threshold, and its colour."""
_TRUTH_NAMES = ("found", "confused", "inaccurate", "missed", "crowd")


@dataclasses.dataclass(frozen=True)
class ImageCounts:
    """What is right and wrong in each image at the threshold, int64 [I] each."""

    truths: np.ndarray
    found: np.ndarray
    false: np.ndarray
    """Detections that are not of the instance under them, or of none."""

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, [I]; 1 for an image rightly left empty."""
        total = self.truths + self.found + self.false
        return np.where(total > 0, 2 * self.found / np.maximum(total, 1), 1.0)


@dataclasses.dataclass(frozen=True)
class ImageCard:
    """An image as the page shows it."""

    file_name: str
    truth: str
    """data: URL of the image with the true instances."""
    prediction: str
    link: str
    """The overlay at full size, relative to the page."""
    truths: int
    found: int
    false: int


@dataclasses.dataclass(frozen=True)
class CloseUp:
    """An instance cut out of its image."""

    url: str
    kind: str
    """A key of COLOURS."""
    caption: str


def count_by_image(analysis: Analysis) -> ImageCounts:
    """Counts at the threshold, by position in the sorted image ids."""
    truths, detections, shown = analysis.matches.truths, analysis.matches.detections, analysis.shown
    size = analysis.num_images
    right = _is_right(analysis)
    return ImageCounts(
        truths=np.bincount(truths.image[~truths.crowd], minlength=size),
        found=np.bincount(truths.image[analysis.truth_outcome == 0], minlength=size),
        false=np.bincount(detections.image[shown.counted & ~right], minlength=size),
    )


def choose_images(counts: ImageCounts) -> tuple[list[int], list[int]]:
    """Positions of the worst images, most errors first, and of the most typical ones, nearest to the median F1."""
    f1, errors = counts.f1, counts.truths - counts.found + counts.false
    wrong = np.flatnonzero(errors > 0)
    worst = wrong[np.lexsort((-errors[wrong], f1[wrong]))][:IMAGES_OF_A_KIND]
    rest = np.setdiff1d(np.flatnonzero(counts.truths + counts.false > 0), worst)
    distance = np.abs(f1[rest] - np.median(f1)) if len(rest) else np.zeros(0)
    typical = rest[np.lexsort((-counts.truths[rest], distance))][:IMAGES_OF_A_KIND]
    return worst.tolist(), typical.tolist()


def choose_close_ups(analysis: Analysis) -> dict[int, list[tuple[str, int]]]:
    """For the categories of the lowest AP: their instances and detections to show, as (kind, index)."""
    present = [i for i, row in enumerate(analysis.rows) if row.outcome.truths]
    chosen = sorted(present, key=lambda i: analysis.rows[i].ap)[:_CATEGORIES]
    truths, detections = analysis.matches.truths, analysis.matches.detections
    false = analysis.shown.counted & ~_is_right(analysis) & (analysis.shown.truth_of < 0)
    found: dict[int, list[tuple[str, int]]] = {}
    for category in chosen:
        groups = [
            [
                (name, int(g))
                for g in _largest(truths, (truths.category == category) & (analysis.truth_outcome == place))
            ]
            for place, name in enumerate(_TRUTH_NAMES[:4])
        ]
        mine = np.flatnonzero(false & (detections.category == category))
        groups.append([("false", int(d)) for d in mine[np.argsort(-detections.score[mine], kind="stable")]])
        found[category] = _in_turn(groups, _CLOSE_UPS)
    return found


def read_images(manifest: Manifest, image_ids: Collection[int]) -> dict[int, np.ndarray]:
    """Images uint8 [h,w,3] of a folder of shards by image id; ids that are not in it are left out."""
    wanted = tf.constant(sorted(image_ids), tf.int64)
    features = {"image": tf.io.FixedLenFeature([], tf.string), "image_id": tf.io.FixedLenFeature([], tf.int64)}
    shards = open_shards(manifest, DataConfig()) or RemoteShards(manifest)
    paths = tf.data.Dataset.from_generator(
        lambda: map(shards.path, range(len(manifest.files))), output_signature=tf.TensorSpec([], tf.string)
    )
    parsed = tf.data.TFRecordDataset(paths).map(lambda record: tf.io.parse_single_example(record, features))
    found: dict[int, np.ndarray] = {}
    for record in parsed.filter(lambda record: tf.reduce_any(record["image_id"] == wanted)):
        found.setdefault(int(record["image_id"]), tf.io.decode_jpeg(record["image"], channels=3).numpy())
        if len(found) == len(wanted):
            break
    return found


def make_card(
    analysis: Analysis, position: int, image: dict[str, Any], pixels: np.ndarray, counts: ImageCounts, folder: str
) -> ImageCard:
    """Draws an image for the page, and its overlay at full size into a folder beside the page.

    Args:
      analysis: of the evaluation.
      position: of the image in the sorted ids.
      image: its entry in the COCO json.
      pixels: uint8 [h,w,3], of any size.
      counts: of all images.
      folder: of the page.
    """
    original = (image["height"], image["width"])
    link = f"images/{image['id']}.jpg"
    truth, prediction = (
        _drawn(pixels, original, parts, _SIDE)
        for parts in (_true_parts(analysis, position), _detected(analysis, position))
    )
    full = [
        _drawn(pixels, original, parts, max(_FULL_SIDE, *original), captions=True)
        for parts in (_true_parts(analysis, position), _detected(analysis, position))
    ]
    file_io.write(f"{folder}/{link}", _jpeg(_side_by_side(full)))
    numbers = (int(values[position]) for values in (counts.truths, counts.found, counts.false))
    return ImageCard(image["file_name"], _url(truth), _url(prediction), link, *numbers)


def make_close_up(analysis: Analysis, kind: str, index: int, pixels: np.ndarray) -> CloseUp:
    """Cuts an instance, or for the kind "false" a detection, out of its image."""
    columns = analysis.matches.detections if kind == "false" else analysis.matches.truths
    mask = _resized(columns.masks[index], pixels.shape[:2])
    top, left, bottom, right = _around(mask)
    canvas = pixels[top:bottom, left:right].astype(np.float32)
    large = _enlarged(canvas.clip(0, 255).astype(np.uint8), _CLOSE_UP_SIDE)
    part = PIL.Image.fromarray(mask[top:bottom, left:right]).resize((large.shape[1], large.shape[0]))
    painted = large.astype(np.float32)
    paint_mask(painted, np.asarray(part), COLOURS[kind], 2)
    return CloseUp(_url(PIL.Image.fromarray(painted.round().astype(np.uint8))), kind, _caption(analysis, kind, index))


def _caption(analysis: Analysis, kind: str, index: int) -> str:
    detections = analysis.matches.detections
    if kind == "false":
        # Right for its own category, but a better detection of another one took the instance first.
        hidden = analysis.errors.kind[index] == Kind.CORRECT
        name = "found under another name" if hidden else KINDS[Kind(analysis.errors.kind[index])][0]
        return f"{name}, {detections.score[index]:.2f}"
    over = np.flatnonzero(analysis.shown.truth_of == index)
    if not len(over):
        return {"inaccurate": "mask is off"}.get(kind, kind)
    name = analysis.categories[detections.category[over[0]]]
    return f"{'found' if kind == 'found' else 'taken for ' + name}, {detections.score[over[0]]:.2f}"


def _is_right(analysis: Analysis) -> np.ndarray:
    """bool [D]: shown detections of the category of the instance under them."""
    truth_of, truths = analysis.shown.truth_of, analysis.matches.truths
    matched = truth_of >= 0
    right = np.zeros(len(truth_of), bool)
    right[matched] = truths.category[truth_of[matched]] == analysis.matches.detections.category[matched]
    return right


def _true_parts(analysis: Analysis, position: int) -> list[tuple[dict[str, Any], str, str]]:
    """Masks, kinds and labels of the true instances of an image."""
    truths = analysis.matches.truths
    return [
        (truths.masks[g], _TRUTH_NAMES[analysis.truth_outcome[g]], analysis.categories[truths.category[g]])
        for g in np.flatnonzero(truths.image == position)
    ]


def _detected(analysis: Analysis, position: int) -> list[tuple[dict[str, Any], str, str]]:
    """Masks, kinds and labels of the detections shown in an image."""
    detections, shown = analysis.matches.detections, analysis.shown
    right = _is_right(analysis)
    parts = []
    for d in np.flatnonzero((detections.image == position) & shown.counted):
        kind = "found" if right[d] else "confused" if shown.truth_of[d] >= 0 else "false"
        label = f"{analysis.categories[detections.category[d]]} {detections.score[d]:.2f}"
        parts.append((detections.masks[d], kind, label))
    return parts


def _drawn(
    pixels: np.ndarray,
    original: tuple[int, int],
    parts: Iterable[tuple[dict[str, Any], str, str]],
    side: int,
    captions: bool = True,
) -> PIL.Image.Image:
    """The image with its long side enlarged or reduced to `side`, masks in the colours of their kinds, and labels."""
    large = _enlarged(pixels, side)
    canvas = large.astype(np.float32)
    masks = [(_resized(mask, large.shape[:2]), kind, label) for mask, kind, label in parts]
    for mask, kind, _ in sorted(masks, key=lambda part: -int(part[0].sum())):
        paint_mask(canvas, mask, COLOURS[kind], max(2, side // 250))
    image = PIL.Image.fromarray(canvas.round().astype(np.uint8))
    if captions:
        for mask, kind, label in masks:
            _write(image, mask, label, COLOURS[kind], max(12, side // 34))
    return image


def _write(image: PIL.Image.Image, mask: np.ndarray, label: str, colour: tuple[int, int, int], size: int) -> None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    draw, font = PIL.ImageDraw.Draw(image), PIL.ImageFont.load_default(size=size)
    left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
    x = min(max(0, int(columns[0])), max(0, image.width - (right - left) - 6))
    y = max(0, int(rows[0]) - (bottom - top) - 4)
    draw.rounded_rectangle((x, y, x + right - left + 6, y + bottom - top + 4), radius=3, fill=colour)
    draw.text((x + 3 - left, y + 2 - top), label, font=font, fill="white")


def _resized(rle: dict[str, Any], size: tuple[int, ...]) -> np.ndarray:
    """Bool mask of another size, nearest pixel."""
    mask = PIL.Image.fromarray(coco_mask.decode(rle).astype(bool))
    return np.asarray(mask.resize((size[1], size[0]), PIL.Image.Resampling.NEAREST))


def _enlarged(pixels: np.ndarray, side: int) -> np.ndarray:
    factor = side / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.LANCZOS))


def _around(mask: np.ndarray) -> tuple[int, int, int, int]:
    """A square around a mask, with a margin: top, left, bottom, right inside the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, mask.shape[0], mask.shape[1]
    half = max(8, 0.75 * max(rows[-1] - rows[0], columns[-1] - columns[0]))
    y, x = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
    top, left = max(0, int(y - half)), max(0, int(x - half))
    return top, left, min(mask.shape[0], int(y + half) + 1), min(mask.shape[1], int(x + half) + 1)


def _largest(truths: Any, chosen: np.ndarray) -> np.ndarray:
    indices = np.flatnonzero(chosen)
    return indices[np.argsort(-truths.area[indices], kind="stable")]


def _in_turn(groups: Sequence[list[tuple[str, int]]], count: int) -> list[tuple[str, int]]:
    """Up to `count` items, one of each group in turn; then in the order of the groups."""
    taken: list[list[tuple[str, int]]] = [[] for _ in groups]
    for place in range(count):
        for group, mine in zip(groups, taken, strict=True):
            if place < len(group) and sum(map(len, taken)) < count:
                mine.append(group[place])
    return [item for mine in taken for item in mine]


def _side_by_side(images: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    gap = 8
    sheet = PIL.Image.new("RGB", (sum(i.width for i in images) + gap, images[0].height), "white")
    sheet.paste(images[0], (0, 0))
    sheet.paste(images[1], (images[0].width + gap, 0))
    return sheet


def _jpeg(image: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def _url(image: PIL.Image.Image) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(_jpeg(image)).decode()}"
