"""Images that show nearly the same: frames of a video, copies in another size, quality or brightness.

Two images are near if two things agree. Their difference hashes: 256 bits that say for 16 x 16 points of the shrunk
grey image whether the pixel to the right is brighter; copies differ in few bits, other images in about half of them.
And the shrunk images themselves, up to brightness and contrast: the bits alone also agree for unlike images with the
same smooth slope of brightness behind small objects.
"""

import io
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageOps

from solo_dist.storage import file_io

SIDE = 16
MOST_DIFFERENT_BITS = 40
"""Of 256. Measured: copies in half the size or JPEG quality 40 differ in up to 37, different photos in 65 and more."""
LEAST_CORRELATION = 0.93
"""Measured: copies of 0.6 to 1.4 times the brightness have 0.965 and more, drawn images of close hashes up to 0.90."""
_BLOCK = 512


def shrunk(data: bytes) -> np.ndarray:
    """Grey values, float32 [16,17], of an encoded image, turned upright. Raises what Pillow raises if it is damaged."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        image.draft("L", (8 * SIDE, 8 * SIDE))  # a JPEG is decoded at a fraction of its size
        grey = PIL.ImageOps.exif_transpose(image).convert("L")
    return np.asarray(grey.resize((SIDE + 1, SIDE), PIL.Image.Resampling.BOX), np.float32)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of two shrunk images, from -1 to 1; 0 if one of them is of one grey."""
    return float((_normalised(one[None]) * _normalised(other[None])).sum())


def near_duplicates(paths: Sequence[str]) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs of indices of nearly equal images, and the indices of those that cannot be read."""
    images, readable, unreadable = [], [], []
    for index, path in enumerate(paths):
        try:
            images.append(shrunk(file_io.read(path)))
            readable.append(index)
        except Exception:  # a missing file, or any error of the decoders
            unreadable.append(index)
    return [(readable[one], readable[other]) for one, other in close_pairs(np.array(images))], unreadable


def close_pairs(images: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of indices of near images, of shrunk images float32 [n,16,17]."""
    if len(images) < 2:
        return []
    signs, values = _signs(images), _normalised(images)
    pairs = []
    for start in range(0, len(signs), _BLOCK):
        # A product of signs counts equal bits minus different ones.
        different = (signs.shape[1] - signs[start : start + _BLOCK] @ signs[start:].T) / 2
        for one, other in (start + np.argwhere(different <= MOST_DIFFERENT_BITS)).tolist():
            if one < other and values[one] @ values[other] >= LEAST_CORRELATION:
                pairs.append((one, other))
    return pairs


def _signs(images: np.ndarray) -> np.ndarray:
    """The hashes, -1 or 1, float32 [n,256]."""
    brighter = images[:, :, 1:] > images[:, :, :-1]
    return np.where(brighter, 1, -1).astype(np.float32).reshape(len(images), -1)


def _normalised(images: np.ndarray) -> np.ndarray:
    """Float32 [n,272] of mean 0 and length 1, or of zeros for an image of one grey."""
    values = images.reshape(len(images), -1)
    values = values - values.mean(1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
