"""The arrays of a COCO json, streamed element by element, so that hundreds of megabytes take little memory."""

import io
import json
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from solo_dist.errors import DataError
from solo_dist.json_text import EMPTY, NotJson, decoder_of, explained, not_text
from solo_dist.storage import file_io, urls
from solo_dist.storage.opening import opened

ARRAYS = ("images", "annotations", "categories")
_CHUNK = 1 << 22
_LEAST_BEGINNING = 4
"""Bytes of a file that show its encoding."""


class CocoError(DataError):
    """A file that is not COCO instances; the message names the file and the remedy."""


def stream_arrays(path: str) -> Iterator[tuple[str, Any]]:
    """Yields (name, element) of the arrays images, annotations and categories of a json object, in file order.

    Raises:
      CocoError: the file does not exist, cannot be read, is not json, or lacks one of the arrays.
    """
    check_is_file(path)
    seen = set()
    try:
        with opened(path) as file:
            for name, element in _JsonReader(file).arrays():
                if name not in seen and name in ARRAYS:
                    seen.add(name)
                if element is not _START:
                    yield name, element
    except NotJson as error:
        raise CocoError(f"{path} is not valid json: {error}.") from error
    except tf.errors.OpError as error:
        raise CocoError(f"{path} cannot be read: {error.message}.") from error
    except _NotCoco as error:
        raise CocoError(f"{path} is not a COCO instances file: {error}.") from error
    missing = [name for name in ARRAYS if name not in seen]
    if missing:
        raise CocoError(f"{path} is not a COCO instances file: it has no {' and no '.join(missing)}.")


def check_is_file(path: str) -> None:
    """Raises CocoError if there is no file of that name."""
    is_folder = not urls.is_remote(path) and tf.io.gfile.isdir(path)
    if is_folder or not file_io.exists(path):
        found = " (it is a folder)" if is_folder else ""
        raise CocoError(f"There is no file {path}{found}; give the COCO instances json.")


class _NotCoco(ValueError):
    pass


_START = object()
"""Announces an array, which may be empty."""


class _JsonReader:
    """Decodes a json object from a binary file, holding one element of its arrays at a time."""

    def __init__(self, file: Any):
        self._file = file
        self._decoder: io.IncrementalNewlineDecoder | None = None
        self._parse = json.JSONDecoder().raw_decode
        self._text = ""
        """What is held of the file; parsing goes on at `_at`."""
        self._at = 0
        self._ended = False
        self._line, self._column = 1, 1
        """Place in the file of the first character of `_text`."""

    def arrays(self) -> Iterator[tuple[str, Any]]:
        """(name, _START) for each of the arrays, then (name, element) for each of its elements. Raises NotJson."""
        try:
            yield from self._top_level()
        except json.JSONDecodeError as error:
            raise NotJson(explained(error, self._position, self._ended)) from error
        except RecursionError as error:
            raise NotJson("it is nested too deeply") from error

    def _top_level(self) -> Iterator[tuple[str, Any]]:
        if not self._peek():
            raise NotJson(EMPTY)
        if self._peek() != "{":
            self._value()
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
                raise json.JSONDecodeError("Expecting a value after the comma", self._text, self._at)

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
        data = self._file.read(size if self._decoder else max(size, _LEAST_BEGINNING))
        self._ended = not data
        self._line, self._column = self._position(self._at)
        self._text = self._text[self._at :]
        self._at = 0
        self._decoder = self._decoder or decoder_of(data)
        try:
            self._text += self._decoder.decode(data, self._ended)
        except UnicodeDecodeError as error:
            raise NotJson(not_text(error, self._position(len(self._text))[0])) from error
        return bool(data)

    def _position(self, at: int) -> tuple[int, int]:
        """Line and column in the file of a character of `_text`, both from 1."""
        lines = self._text.count("\n", 0, at)
        if lines:
            return self._line + lines, at - self._text.rindex("\n", 0, at)
        return self._line, self._column + at
