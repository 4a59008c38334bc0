"""Json as tools, editors and shells write it: any Unicode encoding, any ends of lines, and errors with their line."""

import codecs
import io
import json
import re
from collections.abc import Callable
from typing import Any

_COMPRESSED = {b"\x1f\x8b": "gzip", b"PK": "zip"}
_SHOWN = 40
EMPTY = "it is empty"


class NotJson(ValueError):
    """Bytes that are not one json; the message says what is wrong and where."""


def decoder_of(beginning: bytes) -> io.IncrementalNewlineDecoder:
    """What turns a file with this beginning into text whose lines end with a newline only. Raises NotJson.

    Files without a byte order mark are UTF-8, unless their zeros show UTF-16 or UTF-32.
    """
    for mark, name in _COMPRESSED.items():
        if beginning.startswith(mark):
            raise NotJson(f"it is compressed with {name}; unpack it")
    encoding = json.detect_encoding(beginning)
    return io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)


def parse(data: bytes) -> Any:
    """The value of a json file. Raises NotJson."""
    try:
        text = decoder_of(data).decode(data, True)
    except UnicodeDecodeError as error:
        raise NotJson(not_text(error, 1)) from error
    if not text.strip():
        raise NotJson(EMPTY)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise NotJson(
            explained(error, lambda at: (text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)))
        ) from error
    except RecursionError as error:
        raise NotJson("it is nested too deeply") from error


def not_text(error: UnicodeDecodeError, line: int) -> str:
    """What is wrong with bytes that are no text; `line` is that of the first of them."""
    before = re.findall(rb"\r\n|\r|\n", bytes(error.object[: error.start]))
    return f"line {line + len(before)} is not UTF-8 text; save the file as UTF-8"


def explained(error: json.JSONDecodeError, position: Callable[[int], tuple[int, int]], ended: bool = True) -> str:
    """What is wrong, and in which line of the file.

    Args:
      error: in a piece of the file's text.
      position: line and column in the file of a character of that piece.
      ended: whether the piece goes to the end of the file.
    """
    text, (line, column) = error.doc, position(error.pos)
    # At the end of a file that was cut off there is at most a part of a word, a number or a string.
    cut_off = ended and re.fullmatch(r'[^\s,:{}\[\]"]*\s*', text[error.pos :])
    if cut_off or error.msg.startswith("Unterminated string"):
        return f"it is truncated, it ends too early in line {position(len(text))[0]}; copy or export it again"
    words = f"{error.msg} in line {line}, column {column}"
    if error.msg == "Extra data":
        return f"{words}: the json ends before it; a file holds one json"
    return words + (f": it begins with {text[:_SHOWN]!r}" if (line, column) == (1, 1) else "")
