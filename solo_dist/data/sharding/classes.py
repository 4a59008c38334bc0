"""The classes of a data set, by the ids of categories in each of its sources, and what its images say of them."""

import dataclasses
import functools
from collections.abc import Collection, Sequence

import numpy as np

from solo_dist.data.sharding.coco_image import CocoImage


@dataclasses.dataclass(frozen=True)
class Classes:
    """Classes 0..C-1."""

    ids: Sequence[int]
    """Ids of the categories in the data set, by class."""
    of_source: Sequence[dict[int, int]]
    """For each source, the class by the id of the category in its annotations."""

    @functools.cached_property
    def _class_of(self) -> dict[int, int]:
        """The class by the id in the data set."""
        return {number: place for place, number in enumerate(self.ids)}

    def with_ids_of_set(self, image: CocoImage) -> CocoImage:
        """The image with LVIS's lists in ids of the data set, not of its source; ids of no category are left out."""
        of_source = self.of_source[image.source]

        def ids(numbers: Sequence[int]) -> tuple[int, ...]:
            return tuple(self.ids[of_source[number]] for number in numbers if number in of_source)

        absent = None if image.absent is None else ids(image.absent)
        return dataclasses.replace(image, absent=absent, unfinished=ids(image.unfinished))

    def unknown(self, image: CocoImage, annotated: Collection[int]) -> np.ndarray:
        """Which classes may have objects in an image that have no annotation, bool [C]; of COCO's images, none.

        Args:
          image: a result of `with_ids_of_set`.
          annotated: classes with a usable annotation in it.
        """
        unknown = np.full(len(self.ids), image.absent is not None)
        unknown[list(annotated)] = False
        unknown[[self._class_of[number] for number in image.absent or ()]] = False
        unknown[[self._class_of[number] for number in image.unfinished]] = True
        return unknown
