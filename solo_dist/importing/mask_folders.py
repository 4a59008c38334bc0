"""Masks in folders: a file for each object, or a file for each image that numbers its objects.

  a file an object   masks/NAME/*.png, NAME/masks/*.png or masks/NAME_*.png; the rest of the name before its number is
                     the category: masks/NAME/cat_1.png, masks/NAME/cat/1.png, masks/NAME_cat_1.png
  a file an image    masks/NAME.png or masks/cat/NAME.png: 0 is background, every other value or colour an object;
                     files with soft edges are left out

Without a category in the names, all objects are of the category `object`.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence

import numpy as np

from solo_dist.errors import Unusable
from solo_dist.importing.image_files import is_image, stem
from solo_dist.importing.left_out import Report
from solo_dist.importing.mask_files import Found, Layout, pixels
from solo_dist.importing.soft_edges import check_numbered

ONLY_CATEGORY = "object"
_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm")
_ENDINGS = re.compile(r"[_-](masks?|instances?|instanceids|seg|segmentation|label|labels)$", re.IGNORECASE)
_FOLDERS = ("masks", "mask", "annotations", "instances")


class MaskFolders(Layout):
    """Index PNGs and object PNGs."""

    def __init__(self, folder: str):
        self._folder = folder
        self._category: dict[str, str | None] = {}
        """Of an object PNG; None: the file is an index PNG."""
        self._numbered: dict[str, str] = {}
        """Category of the objects of an index PNG."""

    def pairs(self, found: Sequence[str], others: Sequence[str], report: Report) -> Iterator[tuple[str, str]]:
        """Image file and mask file, for every mask that has an image."""
        given = frozenset(others)
        masks = dict.fromkeys(path for path in found if path.lower().endswith(_SUFFIXES) and self._is_mask(path, given))
        photos = [path for path in (*found, *others) if is_image(path) and path not in masks]
        by_stem: dict[str, list[str]] = {}
        for path in photos:
            by_stem.setdefault(stem(path), []).append(path)
        used = set()
        for mask in masks:
            name, category = self._owner(mask, by_stem)
            candidates = by_stem.get(name, [])
            beside = [path for path in candidates if _parent(path) == _parent(mask)]
            candidates = beside if len(beside) == 1 else candidates
            if len(candidates) == 1:
                used.add(candidates[0])
                self._category[mask] = category
                self._numbered[mask] = self._folder_category(mask, candidates[0])
                yield candidates[0], mask
            else:
                reason = "several image files have this name" if candidates else "mask has no image"
                report.leave_out(mask, Unusable(reason, name))
        for path in photos:
            if path not in used:
                report.leave_out(path, Unusable("image has no mask"))

    def _is_mask(self, path: str, others: frozenset[str]) -> bool:
        """With --images, every file of --input that is not among the images; else what is below a folder `masks`."""
        if others:
            return path not in others
        folders = posixpath.dirname(path).removeprefix(self._folder).lower().split("/")
        return any(name in _FOLDERS for name in folders)

    def _owner(self, mask: str, photos: dict[str, list[str]]) -> tuple[str, str | None]:
        """Name of the mask's image, and the category if the mask is of one object (None: it is an index PNG)."""
        name = stem(mask)
        whole = _ENDINGS.sub("", name)
        if name in photos or whole in photos:
            return (name if name in photos else whole), None
        folders = posixpath.dirname(mask).split("/")
        for depth in range(len(folders) - 1, -1, -1):
            if folders[depth] in photos:
                inner = [part for part in folders[depth + 1 :] if part.lower() not in ("masks", "mask")]
                return folders[depth], inner[-1] if inner else _category(name)
        parts = re.split(r"(?=[_-])", name)
        for count in range(len(parts) - 1, 0, -1):
            if "".join(parts[:count]) in photos:
                return "".join(parts[:count]), _category("".join(parts[count:]))
        return name, None

    def _folder_category(self, mask: str, image: str) -> str:
        """The folder of an index PNG, if it is neither that of all masks nor named as the folder of its image."""
        if (
            posixpath.dirname(mask) == self._folder
            or _parent(mask).lower() in _FOLDERS
            or _parent(mask) == _parent(image)
        ):
            return ONLY_CATEGORY
        return _parent(mask)

    def objects(self, path: str, report: Report) -> Found:
        """The objects of a mask file, one at a time. Raises Unusable."""
        values = pixels(path)
        levels = np.unique(values)
        category = self._category[path]
        if category is None:
            check_numbered(values, path, report)
            if levels[0] != 0:
                report.change(path, "no pixel is 0, the background: every value became an object", f"from {levels[0]}")
            yield from ((self._numbered[path], False, values == number) for number in levels if number)
            return
        if len(levels) > 2:
            report.change(path, "mask of one object has grey values: those above the middle count")
        yield category, False, values > levels[-1] / 2


def _parent(path: str) -> str:
    return posixpath.basename(posixpath.dirname(path))


def _category(text: str) -> str:
    """What is left of a name without its number: "cat_01" and "_cat_1" are cat."""
    name = re.sub(r"(^|[_\-. ])(masks?|objects?|instances?)?[_\-. ]*\d*$", "", text.strip("_-. ")).strip("_-. ")
    return name if name and not re.fullmatch(r"[0-9a-f]{16,}|\d+", name) else ONLY_CATEGORY
