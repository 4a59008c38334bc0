"""The arrays of a COCO json, streamed element by element, so that hundreds of megabytes take little memory."""

import codecs
import json
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from solo_dist.errors import DataError
from solo_dist.storage import file_io, urls

ARRAYS = ("images", "annotations", "categories")
_CHUNK = 1 << 22


class CocoError(DataError):
    """A file that is not COCO instances; the message names the file and the remedy."""


def stream_arrays(path: str) -> Iterator[tuple[str, Any]]:
    """Yields (name, element) of the arrays images, annotations and categories of a json object, in file order.

    Raises:
      CocoError: the file does not exist, cannot be read, is not json, or lacks one of the arrays.
    """
    if (not urls.is_remote(path) and tf.io.gfile.isdir(path)) or not file_io.exists(path):
        raise CocoError(f"There is no file {path}; give the COCO instances json.")
    seen = set()
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            for name, element in _JsonReader(file).arrays():
                if name not in seen and name in ARRAYS:
                    seen.add(name)
                if element is not _START:
                    yield name, element
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CocoError(f"{path} is not valid json: {error}.") from error
    except tf.errors.OpError as error:
        raise CocoError(f"{path} cannot be read: {error.message}.") from error
    except _NotCoco as error:
        raise CocoError(f"{path} is not a COCO instances file: {error}.") from error
    missing = [name for name in ARRAYS if name not in seen]
    if missing:
        raise CocoError(f"{path} is not a COCO instances file: it has no {' and no '.join(missing)}.")


class _NotCoco(ValueError):
    pass


_START = object()
"""Announces an array, which may be empty."""


class _JsonReader:
    """Decodes a json object from a binary file, holding one element of its arrays at a time."""

    def __init__(self, file: Any):
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._parse = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._ended = False

    def arrays(self) -> Iterator[tuple[str, Any]]:
        """(name, _START) for each of the arrays, then (name, element) for each of its elements."""
        if self._peek() != "{":
            raise _NotCoco("its top level is not an object")
        self._at += 1
        while self._peek() != "}":
            name = self._value()
            self._take(":")
            if name in ARRAYS:
                if self._peek() != "[":
                    raise _NotCoco(f"its {name} are not a list")
                yield name, _START
                yield from ((name, element) for element in self._elements())
            else:
                self._value()
            self._separator("}")
        self._at += 1
        if self._peek():
            raise json.JSONDecodeError("Extra data", self._text, self._at)

    def _elements(self) -> Iterator[Any]:
        self._at += 1
        while self._peek() != "]":
            yield self._value()
            self._separator("]")
        self._at += 1

    def _separator(self, closing: str) -> None:
        if self._peek() != closing:
            self._take(",")
            if self._peek() == closing:
                raise json.JSONDecodeError("Expecting a value", self._text, self._at)

    def _take(self, wanted: str) -> None:
        if self._peek() != wanted:
            raise json.JSONDecodeError(f"Expecting {wanted!r}", self._text, self._at)
        self._at += 1

    def _peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._read_more(_CHUNK):
                return ""

    def _value(self) -> Any:
        self._peek()
        chunk = _CHUNK
        while True:
            try:
                value, end = self._parse(self._text, self._at)
                # A number could go on in the next chunk: "1", "1." and "1e" all decode as 1.
                if self._ended or (end < len(self._text) and self._text[end] not in "0123456789.eE+-"):
                    self._at = end
                    return value
            except json.JSONDecodeError:
                if self._ended:
                    raise
            self._read_more(chunk)
            chunk *= 2

    def _read_more(self, size: int) -> bool:
        data = self._file.read(size)
        self._ended = not data
        self._text = self._text[self._at :] + self._decode(data, self._ended)
        self._at = 0
        return bool(data)
