"""Writer of LabelMe json files, one an image, to be corrected by people.

An object without holes is a polygon, or several of one group_id; one with holes is LabelMe's shape `mask`, for its
polygons cannot have holes. A score is in the description, and a crowd has the flag `iscrowd`.
"""

import base64
import io
import json
import posixpath
from typing import Any

import numpy as np
import PIL.Image

from solo_dist.importing.dataset import Dataset, Instance, LabelledImage, decode, union
from solo_dist.importing.label_files import label_files
from solo_dist.importing.labelme_shapes import polygon_rle
from solo_dist.importing.outlines import simple_outlines
from solo_dist.storage import file_io, urls

_VERSION = "5.4.1"
"""Of LabelMe; the first versions that know the shape `mask` are older."""


def write_labelme(dataset: Dataset, folder: str, images: str, overwrite: bool = False) -> None:
    """Writes a json for each image, in subfolders as the images are in the folder `images`.

    The images stay where they are: imagePath is relative to the json if both paths allow it. A json that is there
    already is kept and reported unless `overwrite` is true.
    """
    for image, path in label_files(dataset, folder, images, ".json", overwrite):
        file_io.write(path, json.dumps(_content(image, path), ensure_ascii=False, indent=1).encode())


def _content(image: LabelledImage, path: str) -> dict[str, Any]:
    shapes = []
    for number, instance in enumerate(image.instances, start=1):
        shapes += _shapes(instance, number)
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": _image_path(image.path, path),
        "imageData": None,
        "imageHeight": image.height,
        "imageWidth": image.width,
    }


def _image_path(image: str, json_path: str) -> str:
    if urls.is_remote(image) or urls.is_remote(json_path):
        return image
    folder = posixpath.realpath(posixpath.dirname(json_path) or ".")
    return posixpath.relpath(posixpath.realpath(image), folder)


def _shapes(instance: Instance, number: int) -> list[dict[str, Any]]:
    common = {
        "label": instance.category,
        "description": "" if instance.score is None else f"score {instance.score:.3f}",
        "flags": {"iscrowd": True} if instance.crowd else {},
        "mask": None,
    }
    height, width = instance.rle["size"]

    def drawn(rings: list[np.ndarray]) -> dict[str, Any]:
        return union([polygon_rle(ring, height, width) for ring in rings])

    outer, holes = simple_outlines(instance.rle, drawn)
    if holes:
        return [{**common, "group_id": None, "shape_type": "mask", **_mask(decode(instance.rle))}]
    group = number if len(outer) > 1 else None
    return [{**common, "points": ring.tolist(), "group_id": group, "shape_type": "polygon"} for ring in outer]


def _mask(mask: np.ndarray) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = (int(value) for value in (rows[0], rows[-1], columns[0], columns[-1]))
    buffer = io.BytesIO()
    PIL.Image.fromarray(mask[top : bottom + 1, left : right + 1].astype(np.uint8)).save(buffer, "PNG")
    return {"points": [[left, top], [right, bottom]], "mask": base64.b64encode(buffer.getvalue()).decode()}
