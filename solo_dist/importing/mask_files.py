"""What the layouts of mask images have in common: pairs of image and mask, and the objects of a mask."""

import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import PIL.Image

from solo_dist.errors import Unusable
from solo_dist.importing.left_out import Report
from solo_dist.storage import file_io

Found = Iterable[tuple[str, bool, np.ndarray]]
"""Category, whether a crowd, and mask, bool [H, W], of each object of a mask file."""


class Layout:
    """Which masks belong to which image, and which objects are in a mask."""

    def pairs(self, found: Sequence[str], others: Sequence[str], report: Report) -> Iterator[tuple[str, str]]:
        """Image file and mask file, for every mask that has an image.

        Args:
          found: files below --input.
          others: files below --images.
          report: takes the masks without an image.
        """
        raise NotImplementedError

    def objects(self, path: str, report: Report) -> Found:
        """The objects of a mask file. Raises Unusable."""
        raise NotImplementedError

    def ordered(self, names: set[str]) -> list[str]:
        """The categories in the order of their ids."""
        return sorted(names)


def pixels(path: str, coloured: bool = False) -> np.ndarray:
    """Values of a mask file, int [H, W]; of an RGB file, or if `coloured`, its colours as numbers 0xRRGGBB.

    Raises Unusable if it does not decode.
    """
    try:
        with PIL.Image.open(io.BytesIO(file_io.read(path))) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise Unusable("mask has several pages; save each of them as a file")
            if coloured or image.mode in ("RGB", "RGBA"):
                red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), np.int64), 2, 0)
                return red << 16 | green << 8 | blue
            return np.asarray(image if image.mode != "LA" else image.convert("L")).astype(np.int64)
    except Unusable:
        raise
    except Exception as error:  # the decoders of a dozen formats raise many kinds of errors
        raise Unusable("mask does not decode", str(error)[:60]) from error
