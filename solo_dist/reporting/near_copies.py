"""Nearly equal images in the shards of a data set, within a split and across splits.

A validation image with a near copy among the training images is a leak: the model has seen it, so AP is too high.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from solo_dist.data.input.in_order import read_records
from solo_dist.importing.near_duplicates import close_pairs, correlation, shrunk
from solo_dist.reporting.splits import Split


class ImageOf(NamedTuple):
    """An image of a split."""

    split: int
    image_id: int


class NearCopy(NamedTuple):
    """Two images that show nearly the same."""

    one: ImageOf
    other: ImageOf
    likeness: float
    """Correlation of the shrunk images, at most 1."""

    @property
    def leak(self) -> bool:
        """Whether they are in different splits."""
        return self.one.split != self.other.split


class NearCopies(NamedTuple):
    """What a search found."""

    pairs: list[NearCopy]
    """Leaks first, then by likeness."""
    unreadable: int
    """Images that do not decode, which were compared with none."""


def find_near_copies(splits: Sequence[Split]) -> NearCopies:
    """Compares every image of the splits with every other one. Raises ShardError if a file is damaged."""
    images: list[ImageOf] = []
    small: list[np.ndarray] = []
    unreadable = 0
    for number, split in enumerate(splits):
        seen: set[int] = set()
        for record in read_records(split.manifest):
            image_id = int(record.image_id)
            if image_id in seen:  # another augmented copy
                continue
            seen.add(image_id)
            try:
                small.append(shrunk(record.image.numpy()))
                images.append(ImageOf(number, image_id))
            except Exception:  # any error of Pillow's decoders
                unreadable += 1
    pairs = [
        NearCopy(images[one], images[other], correlation(small[one], small[other]))
        for one, other in close_pairs(np.array(small))
    ]
    return NearCopies(sorted(pairs, key=lambda pair: (not pair.leak, -pair.likeness)), unreadable)
