"""Masks as in Cityscapes: *_instanceIds.png with label id x 1000 + number for each object.

A label id alone, of a class that has objects, marks a group whose objects were not separated: it becomes a crowd.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from solo_dist.errors import Unusable
from solo_dist.importing.image_files import is_image, stem
from solo_dist.importing.left_out import Report
from solo_dist.importing.mask_files import Found, Layout, pixels
from solo_dist.importing.soft_edges import check_numbered

_FIRST = 24
_CLASSES = ["person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"]
"""The classes with objects; the first one has the label id 24."""


class Cityscapes(Layout):
    """gtFine and leftImg8bit below one folder, or below two."""

    def pairs(self, found: Sequence[str], others: Sequence[str], report: Report) -> Iterator[tuple[str, str]]:
        """Image file and mask file, for every mask that has an image."""
        images = {stem(path).removesuffix("_leftImg8bit"): path for path in (*found, *others) if _is_photo(path)}
        for path in found:
            if path.endswith("_instanceIds.png"):
                name = re.sub(r"(_gtFine|_gtCoarse)?_instanceIds$", "", stem(path))
                if name in images:
                    yield images[name], path
                else:
                    report.leave_out(path, Unusable("mask has no image", f"{name}_leftImg8bit.png"))

    def objects(self, path: str, report: Report) -> Found:
        """The objects of a mask file. Raises Unusable."""
        numbers = pixels(path)
        check_numbered(numbers, path, report)
        objects = []
        for number in np.unique(numbers):
            label = int(number) // 1000 if number >= 1000 else int(number)
            index = label - _FIRST
            if 0 <= index < len(_CLASSES):
                objects.append((_CLASSES[index], bool(number < 1000), numbers == number))
            elif number >= 1000:
                report.leave_out(path, Unusable("label id has no class with objects", str(label)))
        return objects

    def ordered(self, names: set[str]) -> list[str]:
        """The categories in the order of their label ids."""
        return [name for name in _CLASSES if name in names]


def _is_photo(path: str) -> bool:
    return is_image(path) and not re.search(r"_(instanceIds|labelIds|color|instanceTrainIds|labelTrainIds)\.", path)
