"""Values of a COCO json and other labels as tools and people write them: text is read if it can mean one thing only.

An id "12" is 12, an iscrowd "0" is no crowd, and a size "12.5" is 12.5; "about 12" is none of them.
"""

import ast
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from solo_dist.errors import Unusable

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_INTEGER = re.compile(r"\s*[+-]?\d{1,20}\s*", re.ASCII)
_FALSE, _TRUE = ("0", "0.0", "false", "no", "none", "null", ""), ("1", "1.0", "true", "yes")
_SHOWN = 40
_BITS = 63
"""Bits of an id, without its sign."""


def identifier(value: Any, name: str) -> int:
    """An id: 12, 12.0 and "12" are 12.

    Args:
      name: of the field, for the reason.
    Raises:
      Unusable: no such integer of 64 bits.
    """
    if is_absent(value) or (isinstance(value, str) and not value.strip()):
        raise Unusable(f"{name} is missing")
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        read: float | None = int(value)
    else:
        read = value if type(value) is int else number(value)
    if read is None or read != int(read) or abs(read) >= 2**_BITS:
        raise Unusable(f"{name} is not an integer" + " but text" * isinstance(value, str), shown(value))
    return int(read)


def identifier_or_name(value: Any, name: str) -> int | str:
    """An id of a file that is only read to be numbered anew: text that is no number is an id, too. Raises Unusable."""
    if isinstance(value, str) and value.strip() and not _INTEGER.fullmatch(value):
        return value
    return identifier(value, name)


def number(value: Any) -> float | None:
    """A finite number below 1e15 in size, as such or as text; None: it is something else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    return value if type(value) in (int, float) and abs(value) < 1e15 and math.isfinite(value) else None


def finite(value: Any) -> float:
    """As `number`. Raises Unusable for something else."""
    read = number(value)
    if read is None:
        raise Unusable("value is not a finite number", shown(value))
    return read


def numbers(value: Any, count: int) -> list[float] | None:
    """A list of so many finite numbers; None: it is something else."""
    value = structure(value)
    if not isinstance(value, list) or len(value) != count:
        return None
    read = [number(one) for one in value]
    return None if None in read else read  # type: ignore[return-value]


def box(value: Any) -> list[float] | None:
    """x, y, width and height of a box with an area; None: it is something else."""
    read = numbers(value, 4)
    return read if read and read[2] > 0 and read[3] > 0 else None


def boolean(value: Any, name: str) -> bool:
    """0, 1, true, false, null, and text of these. Raises Unusable for anything else."""
    if value is None or isinstance(value, (bool, int, float, str)):
        text = "" if value is None else str(value).strip().lower()
        if text in _FALSE or text in _TRUE:
            return text in _TRUE
    raise Unusable(f"{name} is neither 0 nor 1", shown(value))


def name_of(entry: Any) -> str:
    """The name of a category, without spaces around it; 5 is "5", and halves of characters are question marks.

    Raises:
      Unusable: there is none.
    """
    name = entry.get("name") if isinstance(entry, dict) else None
    text = str(name).strip() if isinstance(name, str) or (type(name) in (int, float) and not is_absent(name)) else ""
    if not text:
        raise Unusable("category has no name", shown(entry))
    return text.encode("utf-8", "replace").decode()


def alike(names: Iterable[str]) -> list[list[str]]:
    """Names that are the same, or differ in case and spaces only, in lists of two or more."""
    lists: dict[str, list[str]] = {}
    for name in names:
        lists.setdefault("".join(name.casefold().split()), []).append(name)
    return [same for same in lists.values() if len(same) > 1]


def structure(value: Any) -> Any:
    """A list or an object that was written as text, as data frames and spreadsheets do; other values as they are."""
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())  # {'size': [2, 3]} with Python's quotes
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def is_absent(value: Any) -> bool:
    """Whether a field holds nothing: null, "", an empty list or object, or the NaN of data frames."""
    return value is None or value in ("", [], {}) or (isinstance(value, float) and math.isnan(value))


def shown(value: Any) -> str:
    """A value, short enough for a message."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
