"""Values of COCO files as tools write them: text for numbers and booleans is read if it can mean one thing only."""

import math
import re
from typing import Any

from solo_dist.importing.report import LeftOut

_FALSE, _TRUE = ("0", "false", "no", "", "0.0"), ("1", "true", "yes", "1.0")


def identifier(value: Any, name: str) -> int | str:
    """An id: "12" and 12.0 are 12; other text stays as it is. Raises LeftOut for null and what is no id."""
    if isinstance(value, bool) or value is None:
        raise LeftOut(f"{name} is missing or null")
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d+\s*", value):
        return int(value)
    if isinstance(value, int) or (isinstance(value, str) and value.strip()):
        return value
    raise LeftOut(f"{name} is no number", str(value)[:40])


def boolean(value: Any) -> bool:
    """0, 1, true, false, null and text of these. Raises LeftOut."""
    text = str(value).strip().lower() if value is not None else ""
    if text in _FALSE:
        return False
    if text in _TRUE:
        return True
    raise LeftOut("iscrowd is neither 0 nor 1", text[:40])


def length(value: Any) -> int | None:
    """Height or width in pixels; None if it is null, 0 or absent. Raises LeftOut."""
    if value is None or value == "":
        return None
    try:
        read = float(value)
    except (TypeError, ValueError):
        read = math.nan
    if isinstance(value, bool) or not math.isfinite(read) or read != int(read) or read < 0:
        raise LeftOut("height or width is no number of pixels", str(value)[:40])
    return int(read) or None


def is_box(value: Any) -> bool:
    """Whether a value is a box with an area: x, y, width, height."""
    if not isinstance(value, list) or len(value) != 4:
        return False
    if not all(isinstance(side, (int, float)) and math.isfinite(side) for side in value):
        return False
    return value[2] > 0 and value[3] > 0


def rectangle(box: list[float]) -> list[list[float]]:
    """The polygon of a box."""
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]
