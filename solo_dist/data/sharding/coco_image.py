"""An entry of `images` of a COCO json, checked."""

import dataclasses
from typing import Any

from solo_dist.coco_values import identifier, is_absent, number, shown
from solo_dist.errors import Unusable
from solo_dist.masks.rle import MAX_SIDE


@dataclasses.dataclass(frozen=True, slots=True)
class CocoImage:
    """An entry of `images`; there can be millions in memory."""

    id: int
    file_name: str
    height: int
    """0, and so the width: the json does not say."""
    width: int
    absent: tuple[int, ...] | None = None
    """LVIS: ids of categories that are not in the image; None: all that have no annotation in it are not."""
    unfinished: tuple[int, ...] = ()
    """LVIS: ids of categories of which some objects may have no annotation."""
    source: int = 0
    """Number of the source that it comes from."""
    place: tuple[int, int] | None = None
    """Offset and bytes of its file in the tar file of its source; None: it is in none."""

    def to_coco(self) -> dict[str, Any]:
        """The entry of a COCO or LVIS json."""
        values = {"id": self.id, "file_name": self.file_name, "height": self.height, "width": self.width}
        if self.absent is None:
            return values
        return values | {"neg_category_ids": self.absent, "not_exhaustive_category_ids": self.unfinished}


def read_image(entry: Any) -> CocoImage:
    """The image of an entry. Raises Unusable."""
    if not isinstance(entry, dict):
        raise Unusable("image is not an object")
    number_of_image = identifier(entry.get("id"), "image id")
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        raise Unusable("image has no file_name")
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in entry["file_name"]):
        raise Unusable("file_name has characters that are none; give the file and the entry another name")
    sides = [_side(entry.get(name)) for name in ("height", "width")]
    height, width = sides if all(sides) else (0, 0)
    absent = _categories_said(entry, "neg_category_ids")
    return CocoImage(
        number_of_image,
        entry["file_name"],
        height,
        width,
        absent,
        _categories_said(entry, "not_exhaustive_category_ids") or (),
    )


def _categories_said(entry: dict[str, Any], name: str) -> tuple[int, ...] | None:
    """What an entry of LVIS says about categories; None: nothing."""
    if entry.get(name) != [] and is_absent(entry.get(name)):  # an empty list is an answer: no category
        return None
    if not isinstance(entry[name], list):
        raise Unusable(f"{name} of the image are not a list", shown(entry[name]))
    return tuple(identifier(number, f"a number of {name}") for number in entry[name])


def _side(value: Any) -> int:
    """Pixels; 0: the json does not say."""
    side = 0 if is_absent(value) else number(value)
    if side is None or side != int(side) or not 0 <= side <= MAX_SIDE:
        raise Unusable(f"image height or width is not an integer from 1 to {MAX_SIDE}", shown(value))
    return int(side)
