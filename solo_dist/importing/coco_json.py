"""Writer of a COCO instances json with RLE masks."""

import collections
import json
import shlex
from collections.abc import Sequence
from typing import Any

from pycocotools import mask as coco_mask

from solo_dist.coco_values import alike
from solo_dist.errors import DataError
from solo_dist.importing.dataset import Dataset, Instance, LabelledImage, area
from solo_dist.importing.image_files import relative, root_folder
from solo_dist.importing.orientation import stored_in_coco
from solo_dist.storage import file_io

WRITER = "solo-dist import"
"""In `info` of what is written here, by which it is known again."""
_MANY_CROWDS = 0.2
_SHOWN = 3
"""Reasons that an error names."""
_CROWD_REMEDY = ", which are not trained on (--format=coco --crowd=instance takes them as objects)"


def write_coco(dataset: Dataset, path: str, images: str) -> str:
    """Writes the json, and everything that was left out or changed to a file beside it.

    Args:
      dataset: what was read.
      path: of the json.
      images: folder that image names are relative to, if it holds all images; "": the deepest folder that does.
    Returns:
      The folder of the images, which is in `info` of the json too.
    Raises:
      DataError: no instance is left. The report is written nevertheless.
    """
    report = report_path(path)
    file_io.write(report, json.dumps(dataset.report.as_json(), indent=1).encode())
    if not any(not instance.crowd for image in dataset.images for instance in image.instances):
        reasons = dataset.report.lines()
        raise DataError(
            f"No object is left of {len(dataset.images)} images"
            + (f", but {dataset.num_instances} crowds{_CROWD_REMEDY}" if dataset.num_instances else "")
            + (
                f"; {'; '.join(reasons[:_SHOWN])}. All reasons: {report}"
                if reasons
                else ": their annotation files have none."
            )
        )
    folder = root_folder([image.path for image in dataset.images], images)
    ids = {name: number for number, name in enumerate(dataset.categories, start=1)}
    entries = [_image(image, number, folder) for number, image in enumerate(dataset.images, start=1)]
    annotations = [
        {"image_id": number, **_annotation(instance, image.orientation, ids)}
        for number, image in enumerate(dataset.images, start=1)
        for instance in image.instances
    ]
    content = {
        "info": {"contributor": WRITER, "image_folder": folder},
        "images": entries,
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    file_io.write(path, json.dumps(content).encode())
    return folder


def report_path(path: str) -> str:
    """The file with what was left out or changed, beside the json."""
    return f"{path.removesuffix('.json')}.report.json"


def summary(dataset: Dataset) -> str:
    """Numbers of images and instances, a line for each category, and a line for each reason of the report."""
    instances = [instance for image in dataset.images for instance in image.instances]
    counts = collections.Counter(instance.category for instance in instances if not instance.crowd)
    crowds = collections.Counter(instance.category for instance in instances if instance.crowd)
    empty = sum(not image.instances for image in dataset.images)
    lines = [f"{len(dataset.images)} images ({empty} without instances), {len(instances)} instances"]
    width = max(map(len, dataset.categories), default=0)
    for name in dataset.categories:
        crowd = f", {crowds[name]} crowds" if crowds[name] else ""
        lines.append(f"  {name:<{width}}  {counts[name]}{crowd}" + ("" if counts[name] else "  (no instance)"))
    if sum(crowds.values()) > _MANY_CROWDS * len(instances):
        lines.append(f"{sum(crowds.values())} of {len(instances)} instances are crowds{_CROWD_REMEDY}")
    for same in alike(dataset.categories):
        first, *others = same
        renames = ",".join(f"{name}:{first}" for name in others)
        remedy = f"--rename={shlex.quote(renames)} makes them one"
        lines.append(f"categories that differ in case and spaces only: {', '.join(same)} ({remedy})")
    return "\n".join(lines + dataset.report.lines())


def _image(image: LabelledImage, number: int, folder: str) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": relative(image.path, folder),
        "height": image.height,
        "width": image.width,
    }


def _annotation(instance: Instance, orientation: int, ids: dict[str, int]) -> dict[str, Any]:
    rle = stored_in_coco(instance.rle, orientation)
    entry = {
        "category_id": ids[instance.category],
        "segmentation": {"size": _size(rle["size"]), "counts": rle["counts"].decode()},
        "bbox": [float(value) for value in coco_mask.toBbox(rle)],
        "area": area(rle),
        "iscrowd": int(instance.crowd),
    }
    return entry if instance.score is None else {**entry, "score": instance.score}


def _size(size: Sequence[int]) -> list[int]:
    return [int(side) for side in size]
