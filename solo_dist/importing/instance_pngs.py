"""Reader of masks that are images: VOC's, Cityscapes', or those of a folder; see the files of these names.

Masks may be of the upright image or of the pixels as stored; their size shows which.
"""

import posixpath
from collections.abc import Sequence

import numpy as np

from solo_dist.errors import ConfigError, DataError, Unusable
from solo_dist.importing.cityscapes import Cityscapes
from solo_dist.importing.dataset import Dataset, Instance, LabelledImage, checked, encode
from solo_dist.importing.image_files import files_under, image_size
from solo_dist.importing.left_out import Report
from solo_dist.importing.mask_files import Layout
from solo_dist.importing.mask_folders import MaskFolders
from solo_dist.importing.orientation import ImageSize, upright
from solo_dist.importing.voc import Voc


def read_masks(folder: str, images: str, subset: str) -> Dataset:
    """Reads every mask below a folder.

    Args:
      folder: with the masks.
      images: with the images; "": below `folder` too.
      subset: of VOC, the list ImageSets/Segmentation/SUBSET.txt; "": all masks.
    Raises:
      DataError: no mask belongs to an image, or none can be used.
    """
    found = files_under(folder, "input")
    others = files_under(images, "images") if images else []
    reader = _layout(folder.rstrip("/"), found, subset)
    report = Report()
    read: dict[str, LabelledImage] = {}
    pairs = list(reader.pairs(found, others, report))
    for image, mask in pairs:
        try:
            _add(read, image, mask, reader, report)
        except Unusable as error:
            report.leave_out(mask, error)
    if not read:
        reason = (
            "none of its masks can be used."
            if pairs
            else "no mask that belongs to an image; give the folder of the images as --images."
        )
        details = "".join(f" {line}." for line in report.lines()) if report.left_out else ""
        raise DataError(f"--input={folder}: {reason}{details}")
    names = {instance.category for image in read.values() for instance in image.instances}
    return Dataset([read[path] for path in sorted(read)], reader.ordered(names), report)


def _add(read: dict[str, LabelledImage], path: str, mask: str, reader: Layout, report: Report) -> None:
    size = image_size(path)
    image = read.get(path) or LabelledImage(path, *size.upright, orientation=size.orientation)
    objects = reader.objects(mask, report)
    for category, crowd, pixels in objects:
        rle = _placed(pixels, size)
        image.instances.append(Instance(category, checked(rle), crowd))
    read[path] = image


def _placed(mask: np.ndarray, size: ImageSize) -> dict:
    """RLE on the upright image of a mask that was drawn on the upright image or on the pixels as stored."""
    if mask.shape == size.upright:
        return encode(mask)
    if mask.shape == size.stored:
        return upright(encode(mask), size.orientation)
    raise Unusable("mask has another size than its image", f"{mask.shape[0]} x {mask.shape[1]}")


def _layout(folder: str, found: Sequence[str], subset: str) -> Layout:
    parents = {posixpath.basename(posixpath.dirname(path)) for path in found}
    if "SegmentationObject" in parents:
        return Voc(found, subset)
    if subset:
        raise ConfigError(f"--subset={subset} is for VOC's folders; give the folder of the subset as --input.")
    if any(path.endswith("_instanceIds.png") for path in found):
        return Cityscapes()
    return MaskFolders(folder)
