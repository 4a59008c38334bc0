"""Images of more than 8 bits a value as 8 bits: one range for a whole data set, given or found.

Scanners, microscopes and thermal cameras write 10 to 32 bits and floating point numbers, of which a data set uses some
part. What is black and what is white is decided once, by the values of all images together: a rule for each image
alone would give the same value another brightness in every image.
"""

import numpy as np

from solo_dist.errors import ConfigError

PixelRange = tuple[float, float]
"""Value that becomes 0, value that becomes 255."""
FULL_RANGE: PixelRange = (0.0, 65535.0)
"""The range of 16 bits, for models that were trained on images of 8 bits."""

_SHARE = 0.1
"""Percent of the pixels that may be darker than black, and brighter than white: dead and hot ones."""
_SAMPLE = 4096
"""Pixels of each image that the range is found from."""


def to_8_bits(values: np.ndarray, pixel_range: PixelRange) -> np.ndarray:
    """uint8 of values; those outside the range are black or white, and so is what is no number."""
    low, high = pixel_range
    scaled = (np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low) - low) * (255 / (high - low))
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def sample(values: np.ndarray) -> np.ndarray:
    """float64 [at most 4096] of values, evenly spread, without what is no number."""
    flat = values.reshape(-1)
    taken = flat[:: max(1, len(flat) // _SAMPLE)].astype(np.float64)
    return taken[np.isfinite(taken)]


def found_range(samples: list[np.ndarray]) -> PixelRange:
    """The range of a data set, from samples of its images.

    If the values take up most of 16 bits, it is that of 16 bits: they have been made for it, as 8 bits are for theirs.
    """
    low, high = np.percentile(np.concatenate(samples), [_SHARE, 100 - _SHARE])
    if low >= FULL_RANGE[0] and high <= FULL_RANGE[1] and high - low > FULL_RANGE[1] / 2:
        return FULL_RANGE
    low, high = (float(f"{value:.6g}") for value in (low, high))
    return low, high if high > low else low + 1


def parse_range(text: str) -> PixelRange:
    """LOW:HIGH of the flag --pixel_range. Raises ConfigError."""
    low, _, high = text.partition(":")
    try:
        parsed = float(low), float(high)
    except ValueError:
        parsed = (0.0, 0.0)
    if not parsed[0] < parsed[1] < float("inf"):
        raise ConfigError(f"--pixel_range={text} must be LOW:HIGH, two numbers such as 0:4095.")
    return parsed
