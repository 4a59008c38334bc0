"""Writer of YOLO segmentation labels: labels/NAME.txt a row an object, data.yaml with the names.

YOLO finds labels by replacing `images` by `labels` in the path of an image: put, or link, the images as images/SUBSET
beside the folder labels.
"""

from typing import Any

import numpy as np
import yaml

from solo_dist.errors import ConfigError, Unusable
from solo_dist.importing.dataset import Dataset, Instance
from solo_dist.importing.label_files import label_files
from solo_dist.importing.outlines import simple_outlines
from solo_dist.importing.rings import join_rings, ring_rle
from solo_dist.importing.yolo import class_names, read_description
from solo_dist.storage import file_io


def write_yolo(dataset: Dataset, folder: str, images: str, subset: str, overwrite: bool = False) -> None:
    """Writes labels, one file an image, and data.yaml, which keeps the entries that it has.

    The format has no crowds: they are left out and counted in the report.

    Args:
      dataset: what to write.
      folder: gets labels/SUBSET/ and data.yaml.
      images: folder of the images; labels are in subfolders as the images are there.
      subset: the entry of data.yaml, train for example.
      overwrite: whether label files that are there are replaced; else they are kept and reported.
    Raises:
      ConfigError: data.yaml is there and numbers other categories.
    """
    folder = folder.rstrip("/")
    description = _description(f"{folder}/data.yaml", subset, dataset)  # before anything is written
    indices = {name: index for index, name in enumerate(dataset.categories)}
    for image, path in label_files(dataset, f"{folder}/labels/{subset}", images, ".txt", overwrite):
        rows = []
        for instance in image.instances:
            if instance.crowd:
                dataset.report.leave_out(image.path, Unusable("crowd, which YOLO's labels cannot say"))
            else:
                rows.append(f"{indices[instance.category]} {_coordinates(instance)}\n")
        file_io.write(path, "".join(rows).encode())
    file_io.write(f"{folder}/data.yaml", description.encode())


def _description(path: str, subset: str, dataset: Dataset) -> str:
    """Text for data.yaml: what is in it, with its comments, and an entry for the subset if it has none."""
    images = f"images/{subset}"
    if not file_io.exists(path):
        return _dumped({"path": ".", subset: images, "names": dict(enumerate(dataset.categories))})
    _, existing = read_description(path)
    if class_names(existing, path) != dataset.categories:
        raise ConfigError(f"--output: {path} has other names of categories; choose another folder.")
    text = file_io.read(path).decode("utf-8-sig")
    if subset in existing:
        if existing[subset] != images:
            dataset.report.change(
                path, f"the entry of the subset stays, although it is not {images}", str(existing[subset])
            )
        return text
    return f"{text.rstrip()}\n{_dumped({subset: images})}"


def _dumped(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _coordinates(instance: Instance) -> str:
    height, width = instance.rle["size"]
    outer, holes = simple_outlines(instance.rle, lambda rings: ring_rle(join_rings(rings), height, width))
    ring = join_rings(outer + holes) / (width, height)
    return " ".join(f"{value:.6f}" for value in np.ravel(ring))
