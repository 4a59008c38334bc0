"""Annotations in one json an image, in a folder or a tar file, as SA-1B has them (Kirillov et al. 2023).

    {"image": {"image_id": 1, "file_name": "sa_1.jpg", "height": 1500, "width": 2250},
     "annotations": [{"segmentation": {"size": [1500, 2250], "counts": "..."}, "bbox": [...], "area": 10.0, ...}]}

There are no categories: all objects are of one, called object.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from solo_dist import json_text
from solo_dist.data.sharding import tar_files
from solo_dist.data.sharding.coco_json import CocoError
from solo_dist.storage import file_io

CATEGORY = {"id": 1, "name": "object"}
_FILES_AT_A_TIME = 16
_FILES_A_BATCH = 256


def stream_image_jsons(path: str) -> Iterator[tuple[str, Any]]:
    """(name, element) as of `coco_json.stream_arrays`, of all jsons in a folder or a tar file, by their names.

    Raises:
      CocoError: there is no json, or one is damaged or of another kind. TarError, StoreError.
    """
    yield "categories", CATEGORY
    for name, data in json_files(path):
        image, annotations = _parsed(f"{path}/{name}", data)
        number = image.get("id", image.get("image_id"))
        yield "images", image | {"id": number}
        for entry in annotations:
            known = {"image_id": number, "category_id": CATEGORY["id"]}
            yield "annotations", entry | known if isinstance(entry, dict) else entry


def json_files(path: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of the jsons in a folder, without its subfolders, or in a tar file, by their names.

    Raises:
      CocoError: there is none. TarError, StoreError.
    """
    names, read = _reader(path)
    if not names:
        raise CocoError(f"{path} has no .json file; give a COCO instances json, or what holds one json an image.")
    with ThreadPoolExecutor(_FILES_AT_A_TIME) as pool:
        for first in range(0, len(names), _FILES_A_BATCH):
            batch = names[first : first + _FILES_A_BATCH]
            yield from zip(batch, pool.map(read, batch), strict=True)


def _reader(path: str) -> tuple[list[str], Callable[[str], bytes]]:
    if tar_files.is_tar(path):
        places = tar_files.read_index(path)
        names, read = list(places), lambda name: tar_files.read_member(path, places[name])
    else:
        names, read = file_io.names(path), lambda name: file_io.read(f"{path}/{name}")
    return sorted(name for name in names if name.endswith(".json")), read


def _parsed(path: str, data: bytes) -> tuple[dict[str, Any], list[Any]]:
    try:
        values = json_text.parse(data)
    except json_text.NotJson as error:
        raise CocoError(f"{path} is not valid json: {error}.") from error
    known = values if isinstance(values, dict) else {}
    image, annotations = known.get("image"), known.get("annotations")
    if not isinstance(image, dict) or not isinstance(annotations, list):
        raise CocoError(
            f"{path} is not the json of one image: it has no image or no annotations. If it is a COCO instances json, "
            "give this file to --annotations."
        )
    if any("category_id" in entry for entry in annotations if isinstance(entry, dict)):
        raise CocoError(f"{path} has annotations with category_id, and no categories; make a COCO json of it.")
    return image, annotations
