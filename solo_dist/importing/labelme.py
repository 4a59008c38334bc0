"""Reader of LabelMe's json files, versions 3 to 7: one file an image, anywhere below a folder.

How this reader interprets the format: shapes of the same label and group_id are one instance; the label
`__ignore__` is a crowd of every category, so that evaluation counts no detection there; `_background_` is left out;
the flag `iscrowd` of a shape, which this project writes, makes a crowd of its category; an image without a json is
left out, as it was not labelled; one whose json has no shapes is kept as an image without objects.
"""

import base64
import posixpath
from typing import Any

import tensorflow as tf

from solo_dist import json_text
from solo_dist.coco_values import boolean, finite, is_absent
from solo_dist.errors import DataError, Unusable
from solo_dist.importing.categories import BACKGROUND
from solo_dist.importing.dataset import Dataset, Instance, LabelledImage, union, without_duplicates
from solo_dist.importing.image_files import ImageFiles, files_under, image_size, is_inside, outside, relative, stem
from solo_dist.importing.labelme_shapes import shape_notices, shape_rle
from solo_dist.importing.left_out import Report
from solo_dist.importing.orientation import ImageSize, size_of, upright
from solo_dist.storage import file_io

IGNORE = "__ignore__"


def read_labelme(folder: str, images: str, embedded: str) -> Dataset:
    """Reads every LabelMe json below a folder.

    Args:
      folder: with the json files.
      images: with the image files, searched besides `folder`; "": no other.
      embedded: folder for images that exist only inside a json, as imageData.
    Raises:
      DataError: there is no LabelMe json.
    """
    found = files_under(folder, "input")
    searched = [*found, *(files_under(images, "images") if images else [])]
    # What an earlier import took out of jsons is taken again: several of these files can have one name.
    elsewhere = searched if images and is_inside(images, embedded) else outside(searched, embedded)
    reader = _Reader(folder, ImageFiles(searched), ImageFiles(elsewhere), embedded)
    jsons = [path for path in found if path.lower().endswith(".json")]
    reader.read_all(jsons)
    read, report = reader.images, reader.report
    if not read:
        raise DataError(
            f"--input={folder}: none of {len(jsons)} json files is a LabelMe file with its image"
            + (f"; {report.lines()[0]}." if jsons else ".")
        )
    categories = sorted({instance.category for image in read.values() for instance in image.instances})
    for image, rle in reader.ignored:
        image.instances += [Instance(category, rle, crowd=True) for category in categories]
    for path in reader.files.paths:
        if path not in read:
            report.leave_out(path, Unusable("image has no LabelMe json"))
    return Dataset(list(read.values()), categories, report)


class _Reader:
    """Reads jsons one after another. Each image belongs to one json."""

    def __init__(self, folder: str, named: ImageFiles, files: ImageFiles, embedded: str):
        self._named, self.files, self.report = named, files, Report()
        self.images: dict[str, LabelledImage] = {}
        self.ignored: list[tuple[LabelledImage, dict[str, Any]]] = []
        """Masks of `__ignore__`."""
        self._folder, self._embedded = folder.rstrip("/"), embedded
        self._beside: set[str] = set()

    def read_all(self, jsons: list[str]) -> None:
        """Reads those whose image is just where they say before those whose image has to be looked for elsewhere."""
        self._beside = {posixpath.splitext(path)[0] for path in jsons}
        for path in [path for path in jsons if not self._read(path, exactly=True)]:
            self._read(path, exactly=False)

    def _read(self, path: str, exactly: bool) -> bool:
        """Reads a json, or leaves it out; False: `exactly` is asked for, and its image is not where it says."""
        try:
            content = _content(path)
            file = self._file(content, path, exactly)
            if exactly and not file:
                return False
            without_suffix = relative(path, self._folder).removesuffix(".json")
            image, turn = _image_of(content, path, file, f"{self._embedded}/{without_suffix}", self.report)
            if image.path in self.images:
                raise Unusable("another json is about the same image", image.path)
        except Unusable as error:
            self.report.leave_out(path, error)
            return True
        self.images[image.path] = image
        shapes = _Shapes(path, image, turn, self.report)
        image.instances = shapes.instances(content["shapes"])
        self.ignored += [(image, rle) for rle in shapes.ignored]
        return True

    def _file(self, content: dict[str, Any], path: str, exactly: bool) -> str | None:
        """The image file of a json, which no other json names and which is beside no other json of its name."""
        name, (own, _), folder = content.get("imagePath"), posixpath.splitext(path), posixpath.dirname(path)
        if exactly:
            return self._named.exact(name, folder) if isinstance(name, str) else None

        def taken(file: str) -> bool:
            beside = posixpath.splitext(file)[0]
            return file in self.images or (beside in self._beside and beside != own)

        found = self.files.find(name, folder, taken=taken) if isinstance(name, str) else None
        return found or self.files.find_stem(stem(path), folder, taken=taken)


def _content(path: str) -> dict[str, Any]:
    try:
        content = json_text.parse(file_io.read(path))
    except (json_text.NotJson, tf.errors.NotFoundError) as error:  # a link can lead to no file
        raise Unusable("json cannot be read", str(error)[:80]) from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise Unusable("json is not LabelMe's: it has no list of shapes")
    return content


def _image_of(
    content: dict[str, Any], path: str, file: str | None, target: str, report: Report
) -> tuple[LabelledImage, int]:
    """The image of a json, yet without instances, and the EXIF orientation by which its coordinates must be turned.

    `file` is that of the image. An image that exists only as imageData is written to `target` with a suffix.
    LabelMe shows images upright since version 3.5; an older json has the size of the pixels as stored.
    """
    if file:
        size = image_size(file)
    else:
        file, size = _embedded_image(content, target)
        report.change(path, "image taken from imageData", file)
    sides = [content.get(side) for side in ("imageHeight", "imageWidth")]
    height, width = (0 if is_absent(side) else int(finite(side)) for side in sides)
    given = (height, width) if height and width else size.upright
    if given not in (size.upright, size.stored):
        raise Unusable(
            "imageHeight and imageWidth differ from the image file",
            f"{given[0]} x {given[1]}, file {size.upright[0]} x {size.upright[1]}",
        )
    if size.orientation != 1:
        report.change(path, "image is turned by its EXIF tag", file)
    turn = size.orientation if given != size.upright else 1
    return LabelledImage(file, *size.upright, orientation=size.orientation), turn


def _embedded_image(content: dict[str, Any], target: str) -> tuple[str, ImageSize]:
    data = content.get("imageData")
    if not isinstance(data, str) or not data:
        raise Unusable("image file not found", str(content.get("imagePath")))
    try:
        image = base64.b64decode(data)
    except ValueError as error:
        raise Unusable("imageData does not decode") from error
    size = size_of(image)
    suffix = ".jpg" if image.startswith(b"\xff\xd8") else ".png"
    file = f"{target}{suffix}"
    file_io.write(file, image)
    return file, size


class _Shapes:
    """Turns the shapes of one json into instances."""

    def __init__(self, path: str, image: LabelledImage, turn: int, report: Report):
        self._path, self._image, self._turn, self._report = path, image, turn, report
        self.ignored: list[dict[str, Any]] = []
        """Masks of `__ignore__`."""

    def instances(self, shapes: list[Any]) -> list[Instance]:
        groups: dict[tuple, list[dict[str, Any]]] = {}
        for index, shape in enumerate(shapes):
            try:
                label, rle = self._read(shape, index)
                is_crowd = _is_crowd(shape)
            except Unusable as error:
                self._report.leave_out(self._path, error.of(_shape_name(index)))
                continue
            if label == IGNORE:
                self.ignored.append(rle)
                self._report.change(self._path, f"{IGNORE} became a crowd of every category")
                continue
            group = shape.get("group_id")
            key = ("alone", index) if group is None else ("group", str(group))
            groups.setdefault((label, is_crowd, *key), []).append(rle)
        instances = [Instance(key[0], union(rles), crowd=key[1]) for key, rles in groups.items()]
        return without_duplicates(instances, self._path, self._report)

    def _read(self, shape: Any, index: int) -> tuple[str, dict[str, Any]]:
        """Label and mask of a shape. Raises Unusable."""
        if not isinstance(shape, dict):
            raise Unusable("shape is not an object")
        label = shape.get("label")
        if not isinstance(label, (str, int)) or isinstance(label, bool) or not str(label).strip():
            raise Unusable("shape has no label")
        label = str(label).strip()
        if label in BACKGROUND:
            raise Unusable(f"label {label}")
        height, width = self._image.height, self._image.width
        if self._turn in (5, 6, 7, 8):
            height, width = width, height
        rle = shape_rle(shape, height, width)
        for notice in shape_notices(shape, height, width):
            self._report.change(self._path, notice, _shape_name(index))
        return label, upright(rle, self._turn)


def _is_crowd(shape: dict[str, Any]) -> bool:
    flags = shape.get("flags")
    return isinstance(flags, dict) and boolean(flags.get("iscrowd"), "the flag iscrowd")


def _shape_name(index: int) -> str:
    return f"shape number {index + 1}"
