"""Reader of YOLO segmentation labels: a text file an image, a row an object, coordinates from 0 to 1.

Parts of an object are joined by bridges into one ring (see rings.py). Rows of boxes are no masks: left out, or taken as
rectangles if `boxes` says so. As in Ultralytics' own reader, coordinates are of the upright image, and an image
without a label file, or with an empty one, has no objects.
"""

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import yaml

from solo_dist.coco_values import finite
from solo_dist.errors import ConfigError, DataError, Unusable
from solo_dist.importing.dataset import Dataset, Instance, LabelledImage, checked, without_duplicates
from solo_dist.importing.image_files import ImageFiles, files_under, image_size, is_image, normal_path
from solo_dist.importing.left_out import Report
from solo_dist.importing.rings import ring_rle
from solo_dist.importing.text_files import read_lines
from solo_dist.storage import file_io

SUBSETS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
YAML_ENDINGS = (".yaml", ".yml")
NAME_LISTS = ("classes.txt", "obj.names", "_darknet.labels")
_FURTHEST = 2.0
"""Coordinates beyond this are no fractions of the image, but pixels or percentages."""


def read_yolo(source: str, subset: str, boxes: str) -> Dataset:
    """Reads the label files of a YOLO dataset.

    Args:
      source: data.yaml, or the folder that it is in; without a yaml file, a folder with classes.txt.
      subset: train, validation or test; "": all of them.
      boxes: reject or rectangles, for rows with a box.
    Raises:
      DataError: there are no names of categories, or no images.
    """
    described, description = read_description(source)
    names = class_names(description, described)
    report = Report()
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        report.change(described, "several classes have one name: they become one category", name)
    rows = _Rows(names, boxes, report)
    read = [_read_image(path, rows, report) for path in _images_of(description, described, subset, report)]
    return Dataset([image for image in read if image], list(dict.fromkeys(names)), report)


def read_description(source: str) -> tuple[str, dict[str, Any]]:
    """Path and content of data.yaml; the folder and an empty one if there is none. Raises DataError."""
    if source.endswith(YAML_ENDINGS):
        candidates = [source]
    else:
        source = source.rstrip("/")
        candidates = [f"{source}/{name}" for name in file_io.names(source) if name.endswith(YAML_ENDINGS)]
    for path in candidates:
        content = _yaml(path)
        if isinstance(content, dict) and ("names" in content or "nc" in content):
            if "kpt_shape" in content:
                raise DataError(f"{path} describes keypoints (kpt_shape), which are no masks.")
            return path, content
    if source.endswith(YAML_ENDINGS):
        raise DataError(f"{source} has no `names` of categories.")
    return source, {}


def _yaml(path: str) -> Any:
    try:
        text = file_io.read(path).decode("utf-8-sig")
        content = yaml.safe_load(text)
        if isinstance(content, dict) and "names" in content:  # as they are written: `no` and `007` are names, too
            content["names"] = yaml.load(text, yaml.BaseLoader)["names"]
        return content
    except tf.errors.NotFoundError as error:
        raise ConfigError(f"--input={path}: there is no such file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid yaml: {' '.join(str(error).split())[:200]}.") from error


def class_names(description: dict[str, Any], described: str) -> list[str]:
    """Names of the classes by index; YAML has them as a list, or as a mapping from the index. Raises DataError."""
    names = description.get("names")
    if isinstance(names, dict):
        try:
            indices = {int(finite(index)): str(name) for index, name in names.items()}
        except Unusable as error:
            raise DataError(f"{described}: `names` must be a list, or `0: cat` a line, the number first.") from error
        return [indices.get(index, f"class_{index}") for index in range(max(indices, default=-1) + 1)]
    if isinstance(names, list) and names:
        if not all(isinstance(name, str) for name in names):
            raise DataError(f"{described}: `names` must be a list with a name each, or `0: cat` a line.")
        return names
    folder = posixpath.dirname(described) if description else described
    for name in set(NAME_LISTS).intersection(file_io.names(folder)):
        return read_lines(f"{folder}/{name}")
    raise DataError(
        f"{described}: no names of categories; give --input=FOLDER/data.yaml with `names`, or put a classes.txt "
        "with a name a line into the folder."
    )


def _images_of(description: dict[str, Any], described: str, subset: str, report: Report) -> list[str]:
    """Image files of a subset, sorted. Raises ConfigError or DataError if there are none.

    Without a subset, an entry without images is reported only: Roboflow names parts that an export does not have.
    """
    wanted = SUBSETS[subset] if subset else [key for keys in SUBSETS.values() for key in keys]
    entries = [str(entry) for key in wanted for entry in _as_list(description.get(key))]
    if not entries and subset:
        raise ConfigError(f"--subset={subset}: {described} has no entry {' or '.join(wanted)}.")
    if not entries:
        folder = posixpath.dirname(described) if description else described
        entries, described = [folder], f"{folder}/"
    images: set[str] = set()
    without = []
    for entry in entries:
        found = _entry_images(entry, str(description.get("path") or ""), posixpath.dirname(described) or ".", report)
        if not found and subset:
            raise DataError(f"{described}: no image file found for {entry}; correct `path` or this entry.")
        if not found:
            without.append(entry)
        images.update(found)
    if not images:
        reason = f" {report.lines()[0]}." if report.left_out else ""
        raise DataError(
            f"{described}: no image file found for {', '.join(entries)}; correct `path` or these entries.{reason}"
        )
    for entry in without:
        report.leave_out(described, Unusable("entry of data.yaml without image files", entry))
    return sorted(images)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _entry_images(entry: str, path: str, root: str, report: Report) -> list[str]:
    """Images of a folder, or of a text file that lists them.

    Paths may be those of another machine, or begin with ../ though the folder is beside the yaml file, as Roboflow
    writes it: the first folder that has images is taken.
    """
    inside = entry.replace("\\", "/")
    while inside.startswith(("../", "./")):
        inside = inside.partition("/")[2]
    places = (f"{root}/{path}/{entry}", f"{path}/{entry}", entry, f"{root}/{entry}", f"{root}/{inside}")
    for place in dict.fromkeys(map(normal_path, places)):
        if file_io.is_folder(place):
            images = [image for image in files_under(place, "input") if is_image(image)]
        elif place.endswith(".txt") and file_io.exists(place):
            images = _listed_images(place, report)
        else:
            continue
        if images:
            return images
    return []


def _listed_images(path: str, report: Report) -> list[str]:
    """Images that a text file lists; those that are not there are reported."""
    folder = posixpath.dirname(path) or "."
    files = ImageFiles(files_under(folder, "input"))
    found = []
    for line in read_lines(path):
        try:
            image = files.find(line, folder)
            if image is None:
                raise Unusable("listed image file not found", line)
            found.append(image)
        except Unusable as error:
            report.leave_out(path, error)
    return found


def _read_image(path: str, rows: "_Rows", report: Report) -> LabelledImage | None:
    try:
        size = image_size(path)
    except Unusable as error:
        report.leave_out(path, error)
        return None
    image = LabelledImage(path, *size.upright, orientation=size.orientation)
    labels = next((text for text in _label_files(path) if file_io.exists(text)), None)
    if labels is None:
        report.change(path, "image has no label file: taken as an image without objects")
        return image
    if size.orientation != 1:
        report.change(path, "image is turned by its EXIF tag")
    image.instances = rows.read(labels, image)
    return image


def _label_files(image: str) -> Iterator[str]:
    """Possible paths of an image's label file: in a folder labels instead of the last folder images, or beside it."""
    text = posixpath.splitext(image)[0] + ".txt"
    before, separator, after = f"/{text}".rpartition("/images/")
    if separator:
        yield f"{before}/labels/{after}"[1:]
    yield text
    yield f"{posixpath.dirname(posixpath.dirname(text)) or '.'}/labels/{posixpath.basename(text)}"


class _Rows:
    """Turns rows into instances."""

    def __init__(self, names: Sequence[str], boxes: str, report: Report):
        self._names, self._boxes, self._report = names, boxes, report

    def read(self, labels: str, image: LabelledImage) -> list[Instance]:
        instances = []
        text = file_io.read(labels).decode("utf-8-sig", "replace")
        for line, row in enumerate(text.splitlines(), start=1):
            if not row.strip():
                continue
            try:
                instances.append(self._instance(row.split(), image, f"{labels}:{line}"))
            except Unusable as error:
                self._report.leave_out(f"{labels}:{line}", error)
        return without_duplicates(instances, labels, self._report)

    def _instance(self, row: Sequence[str], image: LabelledImage, place: str) -> Instance:
        index = finite(row[0])
        if index != int(index) or not 0 <= index < len(self._names):
            raise Unusable("class index has no name", row[0])
        values = np.array([finite(value) for value in row[1:]])
        if len(values) in (4, 5):
            values = self._rectangle(values)
        elif len(values) > 6 and len(values) % 2:  # Ultralytics appends the confidence of a prediction
            values = values[:-1]
            self._report.change(place, "last value of a row is a confidence: not used")
        if len(values) < 6 or len(values) % 2:
            raise Unusable("row is neither a polygon nor a box", f"{len(values)} coordinates")
        if np.abs(values).max() > _FURTHEST:
            raise Unusable("coordinates are not fractions of the image", f"{np.abs(values).max():g}")
        if values.min() < 0 or values.max() > 1:
            self._report.change(place, "coordinates outside 0 to 1: cut at the edge of the image")
        # Drawing goes in steps of 0.2 pixels, so the error of six digits can move an outline by a step: coordinates are
        # rounded to two decimals of a pixel, which they had before they were divided.
        ring = (values.reshape(-1, 2) * (image.width, image.height)).round(2)
        return Instance(self._names[int(index)], checked(ring_rle(ring, image.height, image.width)))

    def _rectangle(self, values: np.ndarray) -> np.ndarray:
        """Centre and size of a box -> its corners; a fifth value is a confidence."""
        if self._boxes != "rectangles":
            raise Unusable("row is a box, not a polygon; --boxes=rectangles takes it as a rectangle")
        x, y, width, height = values[:4]
        left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        return np.array([left, top, right, top, right, bottom, left, bottom])
