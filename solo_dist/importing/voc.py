"""Masks as in Pascal VOC: SegmentationObject/NAME.png numbers objects, SegmentationClass/NAME.png has their classes.

VOC's own files have palettes, with 0 for background and 255 for pixels of no object. LabelMe's export adds
class_names.txt, with the names in the order of the values. CVAT's exports "Segmentation mask" and "Pascal VOC" have
colours, whose names are in labelmap.txt.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence

import numpy as np

from solo_dist.errors import ConfigError, Unusable
from solo_dist.importing.image_files import ImageFiles, stem
from solo_dist.importing.left_out import Report
from solo_dist.importing.mask_files import Found, Layout, pixels
from solo_dist.importing.soft_edges import check_numbered
from solo_dist.importing.text_files import read_lines
from solo_dist.storage import file_io

_VOID = 255
_NO_CLASS = ("background", "_background_", "void", "__ignore__")
_CLASSES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


class Voc(Layout):
    """A folder with SegmentationObject, SegmentationClass and JPEGImages."""

    def __init__(self, found: Sequence[str], subset: str):
        lists = [path for path in found if path.endswith(f"ImageSets/Segmentation/{subset}.txt")] if subset else []
        if subset and not lists:
            raise ConfigError(f"--subset={subset}: there is no ImageSets/Segmentation/{subset}.txt.")
        self._stems = {line for path in lists for line in read_lines(path)}
        by_name = {posixpath.basename(path): path for path in found}
        self._coloured = "labelmap.txt" in by_name
        if self._coloured:
            self._names = _labelmap(by_name["labelmap.txt"])
        elif "class_names.txt" in by_name:
            self._names = dict(enumerate(read_lines(by_name["class_names.txt"])))
        else:
            self._names = dict(enumerate(["background", *_CLASSES]))
        self._are_vocs_own = not self._coloured and "class_names.txt" not in by_name

    def pairs(self, found: Sequence[str], others: Sequence[str], report: Report) -> Iterator[tuple[str, str]]:
        """Image file and mask file, for every mask that has an image."""
        images = ImageFiles(path for path in (*found, *others) if "/Segmentation" not in path)
        for path in found:
            if "/SegmentationObject/" not in path or (self._stems and stem(path) not in self._stems):
                continue
            try:
                image = images.find_stem(stem(path), posixpath.dirname(path))
                if image is None:
                    raise Unusable("mask has no image")
                yield image, path
            except Unusable as error:
                report.leave_out(path, error)

    def objects(self, path: str, report: Report) -> Found:
        """The objects of a mask file. Raises Unusable."""
        classes_path = path.replace("/SegmentationObject/", "/SegmentationClass/")
        if not file_io.exists(classes_path):
            raise Unusable("SegmentationClass has no file of this name")
        numbers = pixels(path)
        classes = pixels(classes_path, self._coloured)
        if numbers.shape != classes.shape:
            raise Unusable("SegmentationObject and SegmentationClass have different sizes")
        check_numbered(numbers, path, report)
        check_numbered(classes, classes_path, report)
        if self._are_vocs_own:
            report.change(path, "classes are named as VOC's 20: there is no labelmap.txt or class_names.txt")
        void = self._is_void(classes)
        objects = []
        for number in np.setdiff1d(numbers[~void], [0]):
            mask = (numbers == number) & ~void
            values, counts = np.unique(classes[mask], return_counts=True)
            if len(values) > 1:
                report.change(path, "object has several classes: the one with most pixels counts", f"object {number}")
            try:
                objects.append((self._name(int(values[np.argmax(counts)])), False, mask))
            except Unusable as error:
                report.leave_out(path, error)
        return objects

    def _is_void(self, classes: np.ndarray) -> np.ndarray:
        """bool [H, W]: pixels of no object."""
        without_class = [value for value, name in self._names.items() if name in _NO_CLASS]
        return np.isin(classes, [0, *without_class, *([] if self._coloured else [_VOID])])

    def _name(self, value: int) -> str:
        if value not in self._names:
            shown = f"#{value:06x}" if self._coloured else str(value)
            raise Unusable("value or colour of SegmentationClass has no name", shown)
        return self._names[value]

    def ordered(self, names: set[str]) -> list[str]:
        """The categories as they are listed in the file of names."""
        return [name for name in dict.fromkeys(self._names.values()) if name in names]


def _labelmap(path: str) -> dict[int, str]:
    """CVAT's labelmap.txt, lines of name:r,g,b:parts:actions -> names by colour."""
    names: dict[int, str] = {}
    for line in read_lines(path):
        match = re.match(r"\s*([^#:][^:]*):(\d+),(\d+),(\d+):", line)
        if match:
            red, green, blue = (int(value) for value in match.groups()[1:])
            names[red << 16 | green << 8 | blue] = match[1].strip()
    return names
