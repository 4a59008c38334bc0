"""The image of an entry of a COCO json: its size, whether it is turned, and its pixels.

COCO's annotations are on the pixels as stored. Many tools show an image upright, and write its upright size: the
size in the json says which pixels it means, unless both are equal (mirrored, upside down, square).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL.Image

from solo_dist.data import image_io, pixel_range
from solo_dist.data.image_io import OpenedImage
from solo_dist.data.pixel_range import FULL_RANGE, PixelRange
from solo_dist.data.sharding.coco_image import CocoImage
from solo_dist.data.sharding.image_files import read_image_file
from solo_dist.data.sharding.reading import Reading
from solo_dist.data.sharding.segmentations import outermost
from solo_dist.errors import Unusable

_IMAGES_AT_A_TIME = 32
_EIGHT_BITS = (".jpg", ".jpeg", ".webp", ".gif", ".bmp")
_MOST_SAMPLED = 2000
_LEAST_LEVELS = 8


@dataclasses.dataclass(frozen=True)
class EntryImage:
    """An image as it goes into the records."""

    entry: CocoImage
    """The entry with the size that was found."""
    rgb: PIL.Image.Image
    jpeg: bytes
    """The file, if it is a JPEG of exactly these pixels; else empty."""
    notices: tuple[str, ...]


def read_entry(
    entry: CocoImage,
    data: bytes,
    reading: Reading,
    deep_range: PixelRange | None = None,
    raw_annotations: Sequence[dict[str, Any]] = (),
) -> EntryImage:
    """Decodes the image of an entry.

    Args:
      entry: of the json.
      data: the image file.
      reading: what to make of sizes and orientations.
      deep_range: for images of more than 8 bits.
      raw_annotations: of the image; they tell whether its height and width are exchanged in the json.
    Raises:
      Unusable: it does not decode, or has another size.
    """
    opened = image_io.open_image(data)
    upright, notices = _orientation(entry, opened, reading, raw_annotations)
    rgb = image_io.to_rgb(opened, upright, deep_range or FULL_RANGE)
    if opened.is_deep and deep_range is None:
        notices.append("image of more than 8 bits is taken with the range of 16 bits")
    elif opened.is_deep and np.ptp(np.asarray(rgb)) < _LEAST_LEVELS:
        notices.append("image of more than 8 bits is of nearly one brightness in the pixel range of the set")
    with contextlib.suppress(Unusable):  # damaged after the first frame
        if opened.frames > 1 and opened.image.format != "MPO":  # whose second frame is a preview, or the other eye's
            notices.append("image has several frames or pages, and the first is taken")
    size = opened.upright if upright else opened.stored
    entry = dataclasses.replace(entry, height=size[0], width=size[1])
    as_is = opened.is_plain_jpeg and (not upright or opened.orientation == 1)
    return EntryImage(entry, rgb, data if as_is else b"", tuple(notices))


def _orientation(
    entry: CocoImage, opened: OpenedImage, reading: Reading, raw_annotations: Sequence[dict[str, Any]]
) -> tuple[bool, list[str]]:
    """Whether to turn the image upright, and notices. Raises Unusable if its size is not that of the json."""
    size = (entry.height, entry.width)
    by_size = size == opened.upright != opened.stored
    unknown = not entry.height or (reading.sizes == "files" and size not in (opened.upright, opened.stored))
    upright = by_size or unknown if reading.orientation == "auto" else reading.orientation == "upright"
    target = opened.upright if upright else opened.stored
    notices = []
    if opened.orientation != 1 and reading.orientation == "auto":
        notices.append(f"image is turned by its orientation tag, and taken {'upright' if upright else 'as stored'}")
    if size == target:
        return upright, notices
    if not entry.height:
        notices.append("image size is missing in the json and taken from the file")
    elif reading.sizes == "files":
        notices.append("image size differs from the json and is taken from the file")
    elif size == target[::-1] and reading.sizes == "auto" and _are_exchanged(size, raw_annotations):
        notices.append("height and width are exchanged in the json and taken from the file")
    else:
        exchanged = ", height and width are exchanged" if size == target[::-1] else ""
        found = f"{entry.height} x {entry.width} in the json, {target[0]} x {target[1]} in the file{exchanged}"
        raise Unusable("image size differs from the json", found)
    return upright, notices


def _are_exchanged(size: tuple[int, int], raw_annotations: Iterable[dict[str, Any]]) -> bool:
    """Whether masks show it: they fit into the image if its sides are exchanged, and only then."""
    height, width = size
    found = [most for raw in raw_annotations if (most := outermost(raw.get("segmentation")))]
    right, bottom = max((x for x, _ in found), default=0), max((y for _, y in found), default=0)
    return (right > width + 1 or bottom > height + 1) and right <= height + 1 and bottom <= width + 1


def find_range(roots: Sequence[str], entries: Sequence[CocoImage]) -> PixelRange | None:
    """The range of the values of all images of more than 8 bits together; None: there are none.

    Of many images, 2000 that are spread evenly are looked at.
    """
    deep = [entry for entry in entries if not entry.file_name.lower().endswith(_EIGHT_BITS)]
    with ThreadPoolExecutor(_IMAGES_AT_A_TIME) as pool:
        chosen = deep[:: -(-len(deep) // _MOST_SAMPLED) or 1]
        samples = [sample for sample in pool.map(_sampler(roots), chosen) if sample is not None and len(sample)]
    return pixel_range.found_range(samples) if samples else None


def _sampler(roots: Sequence[str]) -> Callable[[CocoImage], np.ndarray | None]:
    def sample(entry: CocoImage) -> np.ndarray | None:
        try:
            values = image_io.deep_values(image_io.open_image(read_image_file(roots, entry)))
        except Unusable:  # counted when its record is made
            return None
        return None if values is None else pixel_range.sample(values)

    return sample


def repaired(roots: Sequence[str], images: Sequence[CocoImage], lacking: set[Any], reading: Reading) -> Iterator[bool]:
    """Whether each of the images that could not be used, which `lacking` names by id, can be used now.

    Raises:
      TarError, StoreError: as `read_image_file`.
    """

    def usable(image: CocoImage) -> bool:
        try:
            read_entry(image, read_image_file(roots, image), reading)
        except Unusable:
            return False
        return True

    with ThreadPoolExecutor(_IMAGES_AT_A_TIME) as pool:
        yield from pool.map(usable, [image for image in images if image.id in lacking])
