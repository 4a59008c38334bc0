"""Tells images of numbered objects from those whose pixels were blended: resized with smoothing, JPEG, photos.

Blended pixels have values between those of their neighbours, and hardly two rows of one value. An object that is
at least two pixels thick does not look like that, however many objects there are and however small they are.
"""

import numpy as np

from solo_dist.errors import Unusable
from solo_dist.importing.left_out import Report

_LEAST_VALUES, _LEAST_SHARE = 8, 0.5
"""Of the values other than 0. A disc that was resized with smoothing has 70 to 100 blended values, which are 99% of
all; photos have at least 73%; 4,000 touching cells of 10 pixels have 9%, cells of 5 pixels 27%."""


def check_numbered(values: np.ndarray, path: str, report: Report) -> None:
    """Checks that the values of an image, int [H, W], number objects.

    A few values that look blended can be soft edges or objects of a pixel's thickness: they are taken, and reported.

    Raises:
      Unusable: the image was blended.
    """
    numbers, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    blended = np.bincount(indices.ravel(), _is_blended(values).ravel(), len(numbers)) > counts / 2
    found, total = int(blended[numbers != 0].sum()), int((numbers != 0).sum())
    if not found or found < _LEAST_SHARE * total:
        return
    if found < _LEAST_VALUES:
        which = ", ".join(map(str, numbers[blended & (numbers != 0)]))
        report.change(path, "values that are only between others became objects: are they soft edges?", which)
    else:
        raise Unusable(
            "mask has soft edges or is a picture: resize masks without smoothing, and name one of an object NAME_1.png",
            f"{total} values",
        )


def _is_blended(values: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels with a smaller and a larger value around them, and in no square of 2 x 2 equal pixels."""
    return (_of_3x3(values, np.minimum) < values) & (values < _of_3x3(values, np.maximum)) & ~_in_square(values)


def _of_3x3(values: np.ndarray, smallest_or_largest: np.ufunc) -> np.ndarray:
    """The smallest or the largest value of the 3 x 3 pixels around each, [H, W]."""
    padded = np.pad(values, 1, mode="edge")
    rows = smallest_or_largest(smallest_or_largest(padded[:-2], padded[1:-1]), padded[2:])
    return smallest_or_largest(smallest_or_largest(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _in_square(values: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels in a square of 2 x 2 equal values."""
    corner = values[:-1, :-1]
    squares = (corner == values[1:, :-1]) & (corner == values[:-1, 1:]) & (corner == values[1:, 1:])
    padded = np.pad(squares, 1)
    return padded[:-1, :-1] | padded[1:, :-1] | padded[:-1, 1:] | padded[1:, 1:]
