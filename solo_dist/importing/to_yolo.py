"""Writer of YOLO segmentation labels: labels/NAME.txt a row an object, data.yaml with the names.

YOLO finds labels by replacing `images` by `labels` in the path of an image: put, or link, the images as images/SUBSET
beside the folder labels.
"""

import posixpath

import numpy as np
import yaml

from solo_dist.errors import Unusable
from solo_dist.importing.dataset import Dataset, Instance
from solo_dist.importing.image_files import relative, root_folder
from solo_dist.importing.outlines import simple_outlines
from solo_dist.importing.rings import join_rings, ring_rle
from solo_dist.storage import file_io


def write_yolo(dataset: Dataset, folder: str, images: str, subset: str) -> None:
    """Writes labels, one file an image, and data.yaml.

    The format has no crowds: they are left out and counted in the report.

    Args:
      dataset: what to write.
      folder: gets labels/SUBSET/ and data.yaml.
      images: folder of the images; labels are in subfolders as the images are there.
      subset: the entry of data.yaml, train for example.
    """
    folder = folder.rstrip("/")
    root = root_folder([image.path for image in dataset.images], images)
    indices = {name: index for index, name in enumerate(dataset.categories)}
    for image in dataset.images:
        rows = []
        for instance in image.instances:
            if instance.crowd:
                dataset.report.leave_out(image.path, Unusable("crowd, which YOLO's labels cannot say"))
            else:
                rows.append(f"{indices[instance.category]} {_coordinates(instance)}\n")
        name = posixpath.splitext(relative(image.path, root))[0]
        file_io.write(f"{folder}/labels/{subset}/{name}.txt", "".join(rows).encode())
    description = {"path": ".", subset: f"images/{subset}", "names": dict(enumerate(dataset.categories))}
    file_io.write(f"{folder}/data.yaml", yaml.safe_dump(description, sort_keys=False, allow_unicode=True).encode())


def _coordinates(instance: Instance) -> str:
    height, width = instance.rle["size"]
    outer, holes = simple_outlines(instance.rle, lambda rings: ring_rle(join_rings(rings), height, width))
    ring = join_rings(outer + holes) / (width, height)
    return " ".join(f"{value:.6f}" for value in np.ravel(ring))
