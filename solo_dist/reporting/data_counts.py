"""Numbers of a data set: by category, size, position, shape and crowding, for each split beside the others."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from solo_dist.config import MASK_STRIDE
from solo_dist.reporting.analysis import CROWDING, RARE, SIZES
from solo_dist.reporting.splits import Split

SIDES = tuple(2.0**power for power in np.arange(0, 11.5, 0.5))
"""Bounds of the histogram of sizes: square roots of areas on the canvas, in pixels."""
ASPECTS = tuple(2.0**power for power in np.arange(-4, 4.5, 0.5))
"""Bounds of the histogram of width / height."""
POSITIONS = 12
"""Cells on each side of the map of positions."""
SMALL_SIDE = 4 * MASK_STRIDE
"""Below this size on the canvas a mask has less than 4 x 4 pixels of the masks that the model predicts."""


@dataclasses.dataclass(frozen=True)
class CategoryCounts:
    """A category; lists hold a number for each split."""

    name: str
    instances: list[int]
    images: list[int]
    """Images that show it."""
    crowds: int
    side: float
    """Median size on the canvas in pixels over all splits, nan without instances."""

    @property
    def rare(self) -> bool:
        """Whether the first split, on which one trains, has few examples."""
        return self.instances[0] < RARE


class SplitCounts(NamedTuple):
    """A split as a whole."""

    name: str
    images: int
    empty: int
    """Images without an instance."""
    instances: int
    crowds: int
    sizes: list[int]
    """Instances by COCO's classes of area, as SIZES."""
    small: int
    """Instances below SMALL_SIDE on the canvas."""
    crowding: list[int]
    """Images by number of instances, as CROWDING."""
    most: int
    """Most instances in an image."""
    image_sizes: str
    """The smallest and largest of the images, height x width."""


def count_categories(splits: Sequence[Split], categories: Sequence[str]) -> list[CategoryCounts]:
    """Counts of each category, in the order of the list."""
    number = len(categories)
    plain = [~split.truths.crowd for split in splits]
    instances = [_count(s.truths.category[p], number) for s, p in zip(splits, plain, strict=True)]
    images = []
    for split, kept in zip(splits, plain, strict=True):
        pairs = np.unique(np.stack([split.truths.image[kept], split.truths.category[kept]]), axis=1)
        images.append(_count(pairs[1], number))
    crowds = _count(np.concatenate([s.truths.category[~p] for s, p in zip(splits, plain, strict=True)]), number)
    category = np.concatenate([s.truths.category[p] for s, p in zip(splits, plain, strict=True)])
    side = np.concatenate([s.canvas_side[p] for s, p in zip(splits, plain, strict=True)])
    order = np.argsort(category, kind="stable")
    groups = np.split(side[order], np.searchsorted(category[order], np.arange(1, number)))
    return [
        CategoryCounts(
            name=name,
            instances=[int(counts[i]) for counts in instances],
            images=[int(counts[i]) for counts in images],
            crowds=int(crowds[i]),
            side=float(np.median(groups[i])) if len(groups[i]) else float("nan"),
        )
        for i, name in enumerate(categories)
    ]


def count_split(split: Split) -> SplitCounts:
    """Counts of a split."""
    plain = ~split.truths.crowd
    area, number = split.truths.area[plain], split.instances_of_image
    low, high = split.sizes.min(axis=0), split.sizes.max(axis=0)
    same = (low == high).all()
    return SplitCounts(
        name=split.name,
        images=len(split.images),
        empty=int((number == 0).sum()),
        instances=int(plain.sum()),
        crowds=int((~plain).sum()),
        sizes=[int(((area >= least) & (area < most)).sum()) for _, least, most in SIZES],
        small=int((split.canvas_side[plain] < SMALL_SIDE).sum()),
        crowding=[int(((number >= least) & (number <= most)).sum()) for _, least, most in CROWDING],
        most=int(number.max(initial=0)),
        image_sizes=" x ".join(map(str, low)) + ("" if same else " to " + " x ".join(map(str, high))),
    )


def size_histogram(split: Split) -> np.ndarray:
    """Share of the instances between neighbouring SIDES; the last bin has all larger ones."""
    return _shares(split.canvas_side[~split.truths.crowd], SIDES)


def aspect_histogram(split: Split) -> np.ndarray:
    """Share of the instances by width / height of their boxes between neighbouring ASPECTS."""
    boxes = split.boxes[~split.truths.crowd]
    return _shares(boxes[:, 2] / np.maximum(boxes[:, 3], 1), ASPECTS)


def position_map(splits: Sequence[Split]) -> np.ndarray:
    """Instances by the middle of their boxes, relative to the image; int64 [POSITIONS, POSITIONS], top first."""
    middles = []
    for split in splits:
        plain = ~split.truths.crowd
        middle = split.boxes[plain, :2] + split.boxes[plain, 2:] / 2
        middles.append(middle / split.sizes[split.truths.image[plain]][:, ::-1])
    x, y = np.concatenate(middles).T
    return np.histogram2d(y.clip(0, 1), x.clip(0, 1), POSITIONS, range=((0, 1), (0, 1)))[0].astype(int)


def _count(numbers: np.ndarray, length: int) -> np.ndarray:
    return np.bincount(numbers, minlength=length)


def _shares(values: np.ndarray, bounds: Sequence[float]) -> np.ndarray:
    counts, _ = np.histogram(np.clip(values, bounds[0], bounds[-1]), bounds)
    return counts / max(len(values), 1)
