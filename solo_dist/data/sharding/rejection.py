"""What the shard tool leaves out, or takes but notices, and why. reasons.py has the flag that helps with each."""

import dataclasses
from typing import Any

TOO_SMALL_PIECE = "piece is too small in its tile"
"""Why a part of a mask that was cut by a tile is not trained on; see tiles.py."""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """An annotation or image that is not in the records, or is in them but has a notice."""

    kind: str
    """annotation or image."""
    id: Any
    file: str
    """File name of the image; empty if it is not known."""
    reason: str
    detail: str = ""
    number: int = 0
    """Place of the annotation in the file, from 1; 0: it is an image, or the place is not known."""
