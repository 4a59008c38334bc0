"""Reader of predictions, coco_instances_results.json, so that people can correct them in their annotation tool."""

import posixpath
from collections.abc import Sequence
from typing import Any

from solo_dist.coco_values import identifier_or_name
from solo_dist.errors import DataError, Unusable
from solo_dist.importing.coco_merge import load_json
from solo_dist.importing.dataset import Dataset, Instance, LabelledImage, checked
from solo_dist.importing.image_files import ImageFiles, files_under, image_size
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
    reader = _Reader(known, ImageFiles(files_under(images, "images")), images)
    report = Report()
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


class _Reader:
    """Assigns predictions to their images."""

    def __init__(self, known: dict[str, Any], files: ImageFiles, folder: str):
        self.names = {
            identifier_or_name(entry.get("id"), "category id"): str(entry["name"]) for entry in known["categories"]
        }
        listed: Sequence[dict[str, Any]] = known.get("images") or []
        self._file_names = {identifier_or_name(entry.get("id"), "image id"): entry.get("file_name") for entry in listed}
        self._files, self._folder = files, folder
        self.images: dict[str, LabelledImage] = {}

    def add(self, entry: Any, least_score: float) -> None:
        """Adds one prediction. Raises Unusable."""
        if not isinstance(entry, dict):
            raise Unusable("prediction is not an object")
        score = float(entry.get("score", 1.0))
        image, is_upright = self._image(entry)
        if score < least_score:
            raise Unusable("score is below --score")
        category = identifier_or_name(entry.get("category_id"), "category_id")
        if category not in self.names:
            raise Unusable("category_id is that of no category", str(category))
        segmentation = entry.get("segmentation")
        size = segmentation.get("size") if isinstance(segmentation, dict) else None
        if not isinstance(size, list) or sorted(size) != sorted((image.height, image.width)):
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
