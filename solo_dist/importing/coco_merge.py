"""Reader of COCO instances: several json files become one dataset, whatever tool wrote them.

Ids are valid within one file only, so the dataset gets new ones. Two entries are one image if they name the same file,
and one category if they have the same name. Peculiarities of tools that are handled here:
  CVAT          masks of the brush are RLE with iscrowd 1, like crowds (crowd="auto" takes them as objects)
  Roboflow      a root category of id 0 that other categories name as their supercategory: it is dropped; boxes with an
                empty segmentation; the json is in the folder of the images
  Label Studio  ids from 0, image sizes of null, backslashes and upload folders in file names, boxes without masks
  VIA           text ids, polygons that are not nested in a list, category_id null, an annotation for each attribute
  Supervisely   ids from 0, boxes with an empty segmentation
  Open Images   through FiftyOne or datumaro: IsGroupOf, or is_group_of, marks what COCO calls a crowd
"""

import posixpath
from collections.abc import Collection, Sequence
from typing import Any

from pycocotools import mask as coco_mask

from solo_dist.coco_values import (
    boolean,
    box,
    identifier_or_name,
    is_absent,
    name_of,
    number,
    numbers,
    shown,
    structure,
)
from solo_dist.data.sharding.annotation import PART_LEFT_OUT, box_notice, mask_notices
from solo_dist.data.sharding.segmentations import read_mask
from solo_dist.errors import ConfigError, DataError, Unusable
from solo_dist.importing.categories import BACKGROUND
from solo_dist.importing.dataset import Dataset, Instance, LabelledImage, without_duplicates
from solo_dist.importing.image_files import ImageFiles, files_under, image_size, normal_path, stem
from solo_dist.importing.inputs import is_written_here, load_json
from solo_dist.importing.left_out import Report
from solo_dist.importing.orientation import ImageSize, read_from_coco

_ARRAYS = ("images", "annotations", "categories")


def read_coco(paths: Sequence[str], images: str, crowd: str, boxes: str, in_folders: Collection[str] = ()) -> Dataset:
    """Reads and merges COCO instances files.

    Args:
      paths: the json files.
      images: folder with all image files; "": they are looked for near each json.
      crowd: how iscrowd is read. crowd: as a crowd; instance: it is ignored; auto: as a crowd, except in CVAT's files.
      boxes: reject or rectangles, for annotations with a box and no mask.
      in_folders: those of `paths` that are left out if they are not COCO instances, or were written by this project.
    Raises:
      ConfigError: a file does not exist.
      DataError: a file is not COCO instances.
    """
    report = Report()
    merged: dict[str, LabelledImage] = {}
    categories: dict[str, None] = {}
    contents = {path: _content(path, path in in_folders, report) for path in paths}
    files = [_File(path, content, images, crowd, boxes, report) for path, content in contents.items() if content]
    # An image that is not where one json says is never taken for one that is just where another json says.
    exact = frozenset(normal_path(name) for file in files for name in file.exact)
    for file in files:
        categories.update(dict.fromkeys(file.names.values()))
        file.read_into(merged, exact)
    for image in merged.values():
        image.instances = without_duplicates(image.instances, image.path, report)
    return Dataset(list(merged.values()), list(categories), report)


def _content(path: str, in_folder: bool, report: Report) -> dict[str, Any] | None:
    """The content of a json, or None and an entry in the report: in a folder, other jsons may be beside the labels.

    Damaged json is an error in folders too, as it may be labels.
    """
    try:
        content = load_json(path, "input")
    except ConfigError:
        if not in_folder:
            raise
        report.leave_out(path, Unusable("json is a link to a file that does not exist"))
        return None
    missing = [name for name in _ARRAYS if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    reason = f"it has no list of {' or '.join(missing)}"
    if missing and not in_folder:
        raise DataError(f"{path} is not COCO instances: {reason}.")
    if missing:
        report.leave_out(path, Unusable("json is not COCO instances", reason))
        return None
    if in_folder and is_written_here(content):
        report.leave_out(path, Unusable("json was written by solo-dist import; name the file to read it"))
        return None
    return content


class _File:
    """One COCO json."""

    def __init__(self, path: str, content: dict[str, Any], images: str, crowd: str, boxes: str, report: Report):
        self._path, self._crowd, self._boxes, self._report = path, crowd, boxes, report
        self._content = content
        self._files = ImageFiles(_near(path, images))
        self._folders = _folders(path, images)
        names = [entry.get("file_name") for entry in content["images"] if isinstance(entry, dict)]
        exact = (self._files.exact(name, *self._folders) for name in names if isinstance(name, str))
        self.exact = {file for file in exact if file}
        """Image files that are at the paths that the json names."""
        self._is_cvats = any(_is_cvats(annotation) for annotation in content["annotations"])
        self.names = self._categories()
        """Names of the categories by id."""

    def _categories(self) -> dict[int | str, str]:
        names: dict[int | str, str] = {}
        entries = [entry for entry in self._content["categories"] if isinstance(entry, dict)]
        for entry in self._content["categories"]:
            if not isinstance(entry, dict):
                self._report.leave_out(self._path, Unusable("category is not an object", shown(entry)))
        used = {str(entry.get("category_id")) for entry in self._content["annotations"] if isinstance(entry, dict)}
        parents = {entry["supercategory"] for entry in entries if isinstance(entry.get("supercategory"), str)}
        for entry in entries:
            try:
                number = identifier_or_name(entry.get("id"), "category id")
                name = name_of(entry)
                is_root = str(number) not in used and str(entry.get("supercategory")).lower() in ("none", "")
                if is_root and name in parents:
                    raise Unusable("category is only the root of others", name)
                if name in BACKGROUND:
                    raise Unusable(f"category {name}")
            except Unusable as error:
                self._report.leave_out(self._path, error)
                continue
            if names.setdefault(number, name) != name:
                raise DataError(f"{self._path}: the categories {names[number]} and {name} both have the id {number}.")
        return names

    def read_into(self, merged: dict[str, LabelledImage], exact: Collection[str]) -> None:
        """Adds the images and instances of this file.

        Args:
          merged: holds those of the files before it.
          exact: image files that are at the paths that this file or another one names.
        """
        images, sizes = self._images(merged, exact)
        for place, entry in enumerate(self._content["annotations"], start=1):
            name = _name_of("annotation", entry, place)
            try:
                image, instance, notices = self._annotation(entry, images, sizes)
                image.instances.append(instance)
            except Unusable as error:
                self._report.leave_out(self._path, error.of(name))
                continue
            for reason, detail in notices:
                self._report.change(self._path, reason, f"{name}: {detail}" if detail else name)

    def _images(
        self, merged: dict[str, LabelledImage], exact: Collection[str]
    ) -> tuple[dict[int | str, LabelledImage], dict[int | str, tuple[int, int]]]:
        """Images by id, and height and width of their masks in this json by id."""
        images: dict[int | str, LabelledImage] = {}
        sizes: dict[int | str, tuple[int, int]] = {}
        added: set[str] = set()
        listed: set[str] = set()
        twice: set[int | str] = set()
        for place, entry in enumerate(self._content["images"], start=1):
            try:
                number, path, size, given = self._image(entry, exact)
            except Unusable as error:
                self._report.leave_out(self._path, error.of(_name_of("image", entry, place)))
                continue
            if number in images and normal_path(images[number].path) != normal_path(path):
                twice.add(number)
                self._report.leave_out(self._path, Unusable("image id is that of another image too", str(number)))
                continue
            key = normal_path(path)
            if key not in merged:
                merged[key] = LabelledImage(path, *size.upright, orientation=size.orientation)
                added.add(key)
            elif key in listed:
                self._report.change(self._path, "image is listed twice: its annotations are joined", path)
            listed.add(key)
            images[number], sizes[number] = merged[key], given
        for number in twice:  # an annotation with this id could belong to either image
            key = normal_path(images.pop(number).path)
            if key in added and not any(normal_path(image.path) == key for image in images.values()):
                merged.pop(key, None)
            self._report.leave_out(self._path, Unusable("image id is that of another image too", str(number)))
        return images, sizes

    def _image(self, entry: Any, exact: Collection[str]) -> tuple[int | str, str, ImageSize, tuple[int, int]]:
        """Id, path, size of the file, and height and width in the json. Raises Unusable."""
        if not isinstance(entry, dict):
            raise Unusable("image is not an object")
        number = identifier_or_name(entry.get("id"), "image id")
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            raise Unusable("image has no file_name", str(number))
        height, width = _pixels(entry.get("height")), _pixels(entry.get("width"))
        path = self._files.find(name, *self._folders, taken=lambda file: normal_path(file) in exact)
        if path is None:
            if not height or not width:
                raise Unusable("image file not found, and its size is not in the json", name)
            self._report.change(self._path, "image file not found: its name and size are taken from the json", name)
            return number, posixpath.join(self._folders[0], name), ImageSize((height, width)), (height, width)
        size = image_size(path)
        given = (height, width) if height and width else size.upright
        if not height or not width:
            self._report.change(self._path, "image size taken from the file", name)
        if given not in (size.upright, size.stored) and given == size.upright[::-1]:
            self._report.change(self._path, "height and width are exchanged in the json: taken from the file", name)
            given = size.upright
        if given not in (size.upright, size.stored):
            found = f"{given[0]} x {given[1]}, file {size.upright[0]} x {size.upright[1]}"
            raise Unusable("height and width differ from the image file", f"{name}: {found}")
        if given == size.stored != size.upright:
            # The masks of this json follow the pixels as stored, not the upright image.
            size = ImageSize(size.stored)
        return number, path, size, given

    def _annotation(
        self, entry: Any, images: dict[int | str, LabelledImage], sizes: dict[int | str, tuple[int, int]]
    ) -> tuple[LabelledImage, Instance, list[tuple[str, str]]]:
        """The image of an annotation, its instance, and what is to be said of it with a detail. Raises Unusable."""
        if not isinstance(entry, dict):
            raise Unusable("annotation is not an object", shown(entry))
        number = identifier_or_name(entry.get("image_id"), "image_id")
        if number not in images:
            raise Unusable("image_id is that of no image", str(number))
        category = identifier_or_name(entry.get("category_id"), "category_id")
        if category not in self.names:
            raise Unusable("category_id is that of no category", str(category))
        segmentation = structure(entry.get("segmentation"))
        if is_absent(segmentation) or segmentation == [[]]:
            around = box(entry.get("bbox"))
            if around is None:
                raise Unusable("annotation has neither mask nor box")
            if self._boxes != "rectangles":
                raise Unusable("annotation has a box and no mask; --boxes=rectangles takes it as a rectangle")
            x, y, width, height = around
            segmentation = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        image = images[number]
        mask = read_mask(segmentation, *sizes[number])
        around = numbers(entry.get("bbox"), 4) or coco_mask.toBbox(mask.rle).tolist()
        said = [(f"{wrong}; the mask's own box is taken", "")] if (wrong := box_notice(mask, around)) else []
        said += [(notice, "") for notice in mask_notices(mask)]
        said += [(PART_LEFT_OUT, reason) for reason in mask.left_out]
        rle = read_from_coco(mask.rle, image.orientation)
        return image, Instance(self.names[category], rle, crowd=self._is_crowd(entry)), said

    def _is_crowd(self, entry: dict[str, Any]) -> bool:
        attributes = entry.get("attributes")
        values = {**attributes, **entry} if isinstance(attributes, dict) else entry
        if any(boolean(values.get(name), name) for name in ("IsGroupOf", "is_group_of")):
            self._report.change(self._path, "group of objects became a crowd")
            return True
        if not boolean(entry.get("iscrowd"), "iscrowd"):
            return False
        if self._crowd == "instance" or (self._crowd == "auto" and self._is_cvats):
            self._report.change(self._path, "iscrowd=1 was read as an object; --crowd=crowd reads it as a crowd")
            return False
        return True


def _name_of(kind: str, entry: Any, place: int) -> str:
    """What to call an entry of a list in a report: by its id, or by its place in the list."""
    known = entry if isinstance(entry, dict) else {}
    name = f"{kind} number {place}" if is_absent(known.get("id")) else f"{kind} {shown(known['id'])}"
    return f"{name}, {shown(known['file_name'])}" if "file_name" in known else name


def _pixels(value: Any) -> int | None:
    """Height or width of an image; None if it is absent or 0. Raises Unusable."""
    read = 0 if is_absent(value) else number(value)
    if read is None or read != int(read) or read < 0:
        raise Unusable("height or width is no number of pixels", shown(value))
    return int(read) or None


def _folders(path: str, images: str) -> list[str]:
    """Folders that file names may be relative to, the likeliest first.

    For annotations/instances_NAME.json these include NAME/ and images/NAME/ beside annotations/, as in COCO itself.
    """
    beside = posixpath.dirname(path) or "."
    name = stem(path).removeprefix("instances_")
    roots = [images] if images else [f"{beside}/..", f"{beside}/../images"]
    return [*([images] if images else []), *(f"{root}/{name}" for root in roots), beside]


def _near(path: str, images: str) -> list[str]:
    """Image files that the names in a json are looked for in: those below `images`, or else near the json."""
    if images:
        return files_under(images, "images")
    folder = posixpath.dirname(path) or "."
    if posixpath.basename(folder).lower() == "annotations":
        folder = posixpath.dirname(folder) or "."
    return files_under(folder, "input")


def _is_cvats(annotation: Any) -> bool:
    """CVAT writes the attribute `occluded` into every annotation."""
    attributes = annotation.get("attributes") if isinstance(annotation, dict) else None
    return isinstance(attributes, dict) and "occluded" in attributes
