"""Reader of predictions, coco_instances_results.json, so that people can correct them in their annotation tool."""

import posixpath
from typing import Any

from solo_dist.coco_values import identifier_or_name, number, shown
from solo_dist.errors import DataError, Unusable
from solo_dist.importing.dataset import Dataset, Instance, LabelledImage, checked
from solo_dist.importing.image_files import ImageFiles, files_under, image_size
from solo_dist.importing.inputs import load_json
from solo_dist.importing.left_out import Report
from solo_dist.importing.orientation import read_from_coco
from solo_dist.masks.rle import segmentation_to_rle


def read_predictions(results: str, annotations: str, images: str, score: float) -> Dataset:
    """Reads predictions with at least a score.

    Args:
      results: the list that `predict` or `evaluate` wrote.
      annotations: a json with `categories`, for their names: the instances json or the manifest.json of the shards
        that the model was trained on. Results of `evaluate` name no files: these come from its `images`.
      images: folder of the image files.
      score: least confidence to keep.
    Raises:
      ConfigError: a file does not exist.
      DataError: a file cannot be used, or no prediction is left.
    """
    entries, known = load_json(results, "results"), load_json(annotations, "annotations")
    if not isinstance(entries, list):
        raise DataError(f"{results} is not a list of predictions.")
    if not isinstance(known, dict) or not isinstance(known.get("categories"), list):
        raise DataError(f"{annotations} has no list of categories.")
    report = Report()
    names = _by_id(known["categories"], "name", annotations, report)
    reader = _Reader(names, _by_id(known.get("images"), "file_name", annotations, report), images)
    for entry in entries:
        try:
            reader.add(entry, score)
        except Unusable as error:
            report.leave_out(results, error)
    dataset = Dataset(list(reader.images.values()), list(reader.names.values()), report)
    if not dataset.num_instances:
        reasons = report.lines() or ["it is empty"]
        raise DataError(f"{results}: no prediction is left of {len(entries)}; {reasons[0]}.")
    return dataset


def _by_id(entries: Any, field: str, path: str, report: Report) -> dict[int | str, str]:
    """A field of each entry of a list, by its id. Entries without an id or the field are reported."""
    values: dict[int | str, str] = {}
    for entry in entries if isinstance(entries, list) else ():
        try:
            if not isinstance(entry, dict) or not isinstance(entry.get(field), (str, int)):
                raise Unusable(f"entry has no {field}", shown(entry))
            values[identifier_or_name(entry.get("id"), "id")] = str(entry[field])
        except Unusable as error:
            report.leave_out(path, error)
    return values


class _Reader:
    """Assigns predictions to their images."""

    def __init__(self, names: dict[int | str, str], file_names: dict[int | str, str], folder: str):
        self.names = names
        """Of the categories, by id."""
        self._file_names, self._folder = file_names, folder
        self._files = ImageFiles(files_under(folder, "images"))
        self.images: dict[str, LabelledImage] = {}

    def add(self, entry: Any, least_score: float) -> None:
        """Adds one prediction. Raises Unusable."""
        if not isinstance(entry, dict):
            raise Unusable("prediction is not an object")
        score = number(entry.get("score", 1.0))
        if score is None:
            raise Unusable("score is not a number", shown(entry["score"]))
        image, is_upright = self._image(entry)
        if score < least_score:
            raise Unusable("score is below --score")
        category = identifier_or_name(entry.get("category_id"), "category_id")
        if category not in self.names:
            raise Unusable("category_id is that of no category", str(category))
        segmentation = entry.get("segmentation")
        size = segmentation.get("size") if isinstance(segmentation, dict) else None
        if size not in ([image.height, image.width], [image.width, image.height]):
            raise Unusable("mask has another size than the image file", image.path)
        try:
            rle = checked(segmentation_to_rle(segmentation, *size))
        except ValueError as error:
            raise Unusable(str(error)) from error
        rle = rle if is_upright else read_from_coco(rle, image.orientation)
        if tuple(rle["size"]) != (image.height, image.width):
            raise Unusable("mask has another size than the image file", image.path)
        image.instances.append(Instance(self.names[category], rle, score=score))

    def _image(self, entry: dict[str, Any]) -> tuple[LabelledImage, bool]:
        """The image, and whether the prediction is on the upright image: `predict`, which names files, turns them."""
        own_name = entry.get("file_name")
        name = own_name or self._file_names.get(identifier_or_name(entry.get("image_id"), "image_id"))
        if not isinstance(name, str):
            raise Unusable("image_id is that of no image in --annotations", str(entry.get("image_id")))
        path = self._files.find(name, self._folder) or self._files.find(posixpath.basename(name), self._folder)
        if path is None:
            raise Unusable("image file not found in --images", name)
        if path not in self.images:
            size = image_size(path)
            self.images[path] = LabelledImage(path, *size.upright, orientation=size.orientation)
        return self.images[path], bool(own_name)
