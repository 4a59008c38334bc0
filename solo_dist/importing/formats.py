"""Which format labels are in, found by looking at the files: what `--format=auto` means."""

import dataclasses
import posixpath
from collections.abc import Sequence

import tensorflow as tf

from solo_dist import json_text
from solo_dist.errors import ConfigError
from solo_dist.importing.image_files import files_under, is_image
from solo_dist.importing.inputs import is_written_here
from solo_dist.importing.yolo import NAME_LISTS, YAML_ENDINGS
from solo_dist.storage import file_io

_MASK_FOLDERS = ("masks", "mask", "segmentationobject")
_SHOWN = 2
_RESULT = "result"
"""A COCO json that solo-dist import wrote: labels only if it is named, as it was made from others."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """What to give to the reader of a format."""

    format: str
    """labelme, yolo, masks or coco."""
    inputs: tuple[str, ...]
    """Files or one folder, as `solo-dist import --input` takes them."""


def find_labels(images: str, annotations: str) -> Labels:
    """Looks for labels in a file or folder, or else among the images.

    Args:
      images: folder of the images.
      annotations: file or folder of the labels; "": they are below `images` too.
    Raises:
      ConfigError: there is no image, or there are no labels, or labels of several formats.
    """
    if not file_io.is_folder(images):
        raise ConfigError(f"--images={images}: there is no such folder.")
    files = files_under(images, "images")
    if not any(map(is_image, files)):
        raise ConfigError(f"--images={images}: there is no image in this folder or below it.")
    if annotations and not file_io.is_folder(annotations):
        return _of_file(annotations)
    looked_at = files_under(annotations, "annotations") if annotations else files
    found = _formats(looked_at, annotations.rstrip("/") if annotations else images.rstrip("/"))
    results = found.pop(_RESULT, [])
    if annotations and not found and not results and any(map(is_image, looked_at)):
        found = {"masks": [annotations.rstrip("/")]}  # images that are not those of --images
    where = f"--annotations={annotations}" if annotations else f"--images={images}"
    if not found and results:
        raise ConfigError(f"{where}: the only labels are what solo-dist import wrote; give --annotations={results[0]}.")
    gone = [path for path in looked_at if path.endswith((*YAML_ENDINGS, ".json")) and not file_io.exists(path)]
    if gone and (not found or "yolo" in found):  # readers of other formats report such files
        raise ConfigError(f"{where}: {gone[0]} is a link to a file that does not exist; mend or remove the link.")
    if not found:
        raise ConfigError(
            f"{where}: there are no labels: no LabelMe or COCO json, no data.yaml of YOLO, no folder of masks. If they "
            "are elsewhere, give --annotations=FILE_OR_FOLDER; solo-dist import --help lists what can be read."
        )
    if len(found) > 1:
        kinds = "; ".join(f"{name}: {_examples(paths)}" for name, paths in found.items())
        raise ConfigError(f"{where}: labels of several formats ({kinds}). Choose with --annotations=FILE_OR_FOLDER.")
    ((name, paths),) = found.items()
    folder = annotations.rstrip("/") if annotations else images.rstrip("/")
    return Labels(name, (folder,) if name in ("labelme", "masks") else tuple(paths))


def _examples(paths: Sequence[str]) -> str:
    names = ", ".join(posixpath.basename(path) for path in paths[:_SHOWN])
    return names + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")


def _of_file(path: str) -> Labels:
    """Labels that a single file holds or names."""
    if not file_io.exists(path):
        raise ConfigError(f"--annotations={path}: there is no such file or folder.")
    if path.endswith(YAML_ENDINGS):
        return Labels("yolo", (path,))
    name = _json_format(path) if path.lower().endswith(".json") else ""
    if name in ("coco", _RESULT):
        return Labels("coco", (path,))
    if name == "labelme":
        folder = posixpath.dirname(path) or "."
        raise ConfigError(f"--annotations={path} is of one image; give the folder, --annotations={folder}.")
    raise ConfigError(f"--annotations={path} is neither a COCO json nor the data.yaml of YOLO.")


def _formats(files: Sequence[str], folder: str) -> dict[str, list[str]]:
    """The files of each format that is there. A folder of masks counts only if there is nothing else."""
    found: dict[str, list[str]] = {}
    for path in files:
        if path.lower().endswith(".json") and (name := _json_format(path)):
            found.setdefault(name, []).append(path)
        elif path.endswith(YAML_ENDINGS) and _is_yolos(path):
            found.setdefault("yolo", []).append(path)
    listed = [posixpath.dirname(path) for path in files if posixpath.basename(path) in NAME_LISTS]
    if listed and "yolo" not in found and any(path.endswith(".txt") for path in files):
        found["yolo"] = listed[:1]
    if not found.keys() - {_RESULT}:
        masks = [path for path in files if is_image(path) and _is_mask(path.removeprefix(folder))]
        found |= {"masks": masks} if masks else {}
    return found


def _json_format(path: str) -> str:
    """labelme, coco, result, or "" for any other json, or a file that is none."""
    try:
        content = json_text.parse(_read(path))
    except json_text.NotJson:
        return ""
    if not isinstance(content, dict):
        return ""
    if isinstance(content.get("shapes"), list):
        return "labelme"
    if not all(isinstance(content.get(name), list) for name in ("images", "annotations")):
        return ""
    return _RESULT if is_written_here(content) else "coco"


def _read(path: str) -> bytes:
    """The content of a file; that of a link to a file that is gone is empty."""
    try:
        return file_io.read(path)
    except tf.errors.NotFoundError:
        return b""


def _is_yolos(path: str) -> bool:
    text = _read(path).decode("utf-8", "replace")
    keys = {line.partition(":")[0].strip() for line in text.splitlines() if not line.startswith((" ", "#", "-"))}
    return bool(keys & {"names", "nc"})


def _is_mask(path: str) -> bool:
    folders = posixpath.dirname(path).lower().split("/")
    return path.lower().endswith("_instanceids.png") or any(name in _MASK_FOLDERS for name in folders)
