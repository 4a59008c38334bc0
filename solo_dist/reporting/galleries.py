"""Images for the page: the worst and the most typical ones, truth beside prediction, and close-ups by category.

Colours say what became of an instance; they are those of the page's legend.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from solo_dist.reporting import drawing
from solo_dist.reporting.analysis import CROWD, FOUND, OUTCOMES, Analysis
from solo_dist.reporting.errors_by_kind import KINDS, Kind
from solo_dist.storage import file_io

IMAGES_OF_A_KIND = 6
_CATEGORIES, _CLOSE_UPS = 12, 6
_SIDE, _FULL_SIDE = 400, 1024

COLOURS = {
    "found": (22, 163, 74),
    "confused": (234, 138, 0),
    "inaccurate": (37, 99, 235),
    "missed": (220, 38, 38),
    "crowd": (130, 130, 130),
    "false": (219, 39, 119),
}
"""What an instance or a detection is at the threshold, and its colour."""


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
class CaptionedImage:
    """A small image on a page: an instance cut out of its image, or a whole image."""

    url: str
    kind: str
    """A key of COLOURS."""
    caption: str
    """What is written under it."""


def count_by_image(analysis: Analysis) -> ImageCounts:
    """Counts at the threshold, by position in the sorted image ids."""
    truths, detections, shown = analysis.matches.truths, analysis.matches.detections, analysis.shown
    size = analysis.num_images
    right = _is_right(analysis)
    return ImageCounts(
        truths=np.bincount(truths.image[~truths.crowd], minlength=size),
        found=np.bincount(truths.image[analysis.truth_outcome == FOUND], minlength=size),
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
            for place, name in enumerate(OUTCOMES[:CROWD])
        ]
        mine = np.flatnonzero(false & (detections.category == category))
        groups.append([("false", int(d)) for d in mine[np.argsort(-detections.score[mine], kind="stable")]])
        found[category] = _in_turn(groups, _CLOSE_UPS)
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
    link = f"images/{image['id']}.jpg"
    sides = (_true_parts(analysis, position), _detected(analysis, position))
    full = max(_FULL_SIDE, image["height"], image["width"])
    overlays = [drawing.painted(pixels, parts, full) for parts in sides]
    file_io.write(f"{folder}/{link}", drawing.jpeg(drawing.side_by_side(overlays)))
    truth, prediction = (drawing.url(drawing.painted(pixels, parts, _SIDE)) for parts in sides)
    numbers = (int(values[position]) for values in (counts.truths, counts.found, counts.false))
    return ImageCard(image["file_name"], truth, prediction, link, *numbers)


def make_close_up(analysis: Analysis, kind: str, index: int, pixels: np.ndarray) -> CaptionedImage:
    """Cuts an instance, or for the kind "false" a detection, out of its image."""
    columns = analysis.matches.detections if kind == "false" else analysis.matches.truths
    image = drawing.close_up(pixels, columns.masks[index], COLOURS[kind])
    return CaptionedImage(drawing.url(image), kind, _caption(analysis, kind, index))


def _caption(analysis: Analysis, kind: str, index: int) -> str:
    detections = analysis.matches.detections
    if kind == "false":
        # Right for its own category, but a better detection of another one took the instance first.
        hidden = analysis.errors.kind[index] == Kind.CORRECT
        name = "found under another name" if hidden else KINDS[Kind(analysis.errors.kind[index])][0]
        return f"false: {name}, {detections.score[index]:.2f}"
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


def _true_parts(analysis: Analysis, position: int) -> list[drawing.Part]:
    """The true instances of an image."""
    truths = analysis.matches.truths
    return [
        drawing.Part(
            truths.masks[g],
            COLOURS[OUTCOMES[analysis.truth_outcome[g]]],
            analysis.categories[truths.category[g]],
        )
        for g in np.flatnonzero(truths.image == position)
    ]


def _detected(analysis: Analysis, position: int) -> list[drawing.Part]:
    """The detections shown in an image."""
    detections, shown = analysis.matches.detections, analysis.shown
    right = _is_right(analysis)
    parts = []
    for d in np.flatnonzero((detections.image == position) & shown.counted):
        kind = "found" if right[d] else "confused" if shown.truth_of[d] >= 0 else "false"
        label = f"{analysis.categories[detections.category[d]]} {detections.score[d]:.2f}"
        parts.append(drawing.Part(detections.masks[d], COLOURS[kind], label))
    return parts


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
