"""What is written about an image: COCO results, an overlay, and a PNG of instances."""

import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image

from solo_dist.inference.coco_results import results_of_image
from solo_dist.inference.detector import Found
from solo_dist.viz.overlay import colour_of, overlay

_OVERLAY_QUALITY = 92


def coco_results(found: Found, image_id: int, path: str, categories: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries of coco_instances_results.json for one image."""
    results = results_of_image(image_id, found.scores, found.classes, found.masks, categories)
    return [{"image_id": image_id, "file_name": path, **result} for result in results]


def draw(image: np.ndarray, found: Found, categories: Sequence[dict[str, Any]]) -> PIL.Image.Image:
    """The overlay of an image, uint8 [H0,W0,3], with category and score of each instance."""
    pairs = zip(found.classes, found.scores, strict=True)
    return overlay(image, found.masks, [f"{categories[index]['name']} {score:.2f}" for index, score in pairs])


def jpeg(image: PIL.Image.Image) -> bytes:
    """An overlay as a file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_OVERLAY_QUALITY, subsampling=0)
    return buffer.getvalue()


def without_empty_masks(found: Found) -> Found:
    """Without instances that have no pixel at the original size, and so cannot be shown."""
    if not isinstance(found.masks, np.ndarray):  # found in tiles, where each has pixels
        return found
    kept = found.masks.any(axis=(1, 2))
    return Found(found.scores[kept], found.classes[kept], found.masks[kept])


def index_png(found: Found, size: tuple[int, int]) -> bytes:
    """A PNG of `size`, that of the image: 0, or k if the k-th instance is there; the best one if several are.

    It has a palette, in the colours of the overlay, or 16 bits if there are more than 255 instances.
    """
    indices = np.zeros(size, np.uint16)
    for k in range(len(found.masks), 0, -1):
        indices[found.masks[k - 1]] = k
    buffer = io.BytesIO()
    if len(found.masks) > 255:
        PIL.Image.fromarray(indices).save(buffer, "PNG")
        return buffer.getvalue()
    image = PIL.Image.fromarray(indices.astype(np.uint8))
    image.putpalette([0, 0, 0, *itertools.chain(*map(colour_of, range(255)))])
    image.save(buffer, "PNG")
    return buffer.getvalue()
