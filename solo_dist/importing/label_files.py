"""Which label file each image gets. Files that are there stay as they are: people may have corrected them."""

import posixpath
from collections.abc import Iterator

from solo_dist.errors import Unusable
from solo_dist.importing.dataset import Dataset, LabelledImage
from solo_dist.importing.image_files import normal_path, relative, root_folder
from solo_dist.storage import file_io


def label_files(
    dataset: Dataset, folder: str, images: str, suffix: str, overwrite: bool
) -> Iterator[tuple[LabelledImage, str]]:
    """Each image with the path of its label file; images whose file must not be written are reported instead.

    Args:
      dataset: its report counts the label files that are there already, and images that differ in their suffix only.
      folder: of the label files; they are in subfolders as the images are.
      images: folder of the images.
      suffix: of the label files.
      overwrite: whether files that are there are replaced.
    """
    root = root_folder([image.path for image in dataset.images], images)
    owners: dict[str, str] = {}
    for image in dataset.images:
        path = normal_path(f"{folder}/{posixpath.splitext(relative(image.path, root))[0]}{suffix}")
        owner = owners.setdefault(path, image.path)
        if owner != image.path:
            reason = "another image has the same name without suffix, and the label file is for that one"
            dataset.report.leave_out(image.path, Unusable(reason, owner))
        elif not overwrite and file_io.exists(path):
            dataset.report.leave_out(path, Unusable("label file is there already; --overwrite replaces it"))
        else:
            yield image, path
