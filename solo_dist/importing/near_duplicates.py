"""Images that show nearly the same: frames of a video, copies in another size, quality or brightness.

A difference hash of 256 bits says for 16 x 16 points of the shrunk grey image whether the pixel to the right is
brighter. Copies differ in few bits, other images in about half of them.
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
_BLOCK = 512


def difference_hash(data: bytes) -> np.ndarray:
    """bool [256] of an encoded image, turned upright. Raises what Pillow raises if it does not decode."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        image.draft("L", (8 * SIDE, 8 * SIDE))  # a JPEG is decoded at a fraction of its size
        grey = PIL.ImageOps.exif_transpose(image).convert("L")
    small = np.asarray(grey.resize((SIDE + 1, SIDE), PIL.Image.Resampling.BOX), np.int16)
    return (small[:, 1:] > small[:, :-1]).ravel()


def near_duplicates(paths: Sequence[str]) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs of indices of nearly equal images, and the indices of those that cannot be read."""
    hashes, readable, unreadable = [], [], []
    for index, path in enumerate(paths):
        try:
            hashes.append(difference_hash(file_io.read(path)))
            readable.append(index)
        except Exception:  # a missing file, or any error of the decoders
            unreadable.append(index)
    return [(readable[one], readable[other]) for one, other in close_pairs(np.array(hashes))], unreadable


def close_pairs(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows of bool [n, bits] that differ in at most MOST_DIFFERENT_BITS bits."""
    if len(hashes) < 2:
        return []
    signs = np.where(hashes, 1, -1).astype(np.float32)
    pairs = []
    for start in range(0, len(signs), _BLOCK):
        # A product of signs counts equal bits minus different ones.
        different = (signs.shape[1] - signs[start : start + _BLOCK] @ signs[start:].T) / 2
        for one, other in np.argwhere(different <= MOST_DIFFERENT_BITS).tolist():
            if one < other:
                pairs.append((start + one, start + other))
    return pairs
