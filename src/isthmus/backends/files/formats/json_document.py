"""JSON documents: an object, an array of objects, or such an array inside an object; read as a stream."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from isthmus.backends.files.formats.blocks import BLOCK
from isthmus.backends.files.formats.json_text import parse_row
from isthmus.backends.files.rows import Refusal, Row, RowChunk

MAX_VALUE = 64 << 20
"""The most characters of one value: of a record, or of what is passed over before the array."""
_CHUNK_CHARACTERS = 1 << 20
_BLANK = re.compile(r"[ \t\r\n]*")


class DocumentError(Exception):
    """The document is not JSON from a line on, so that no further row can be told."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def read_document(stream: BinaryIO, path: tuple[str, ...] | None, *, geojson: bool) -> Iterator[RowChunk]:
    """Yield the objects of a document chunk by chunk.

    With a path, it leads through objects to the array of records or to one; `geojson` finds the
    features without one. Raises `DocumentError`.
    """
    text = _Window(stream)
    first, rows, size = 0, [], 0
    try:
        for row, length in _find_rows(text, path, geojson=geojson):
            rows.append(row)
            size += length
            if size >= _CHUNK_CHARACTERS:
                yield RowChunk(first, rows)
                first, rows, size = first + len(rows), [], 0
    except Exception:  # the rows before damage are read
        if rows:
            yield RowChunk(first, rows)
        raise
    if rows:
        yield RowChunk(first, rows)


def _find_rows(text: _Window, path: tuple[str, ...] | None, *, geojson: bool) -> Iterator[tuple[Row, int]]:
    if not text.peek():
        return  # an empty file
    if path is None and geojson and text.peek() == "{":
        path = ("features",)
    for key in path or ():
        if not _enter(text, key):
            raise DocumentError(f"there is no {'.'.join(path or ())!r} in the document")
    if text.peek() == "[":
        yield from _elements(text)
    else:
        line = text.line
        value = text.take_value()
        yield parse_row(value.encode("utf-8", "surrogateescape"), line), len(value)
    for key in reversed(path or ()):
        _leave(text, key)
    if text.peek():
        raise DocumentError(
            "there is more after the end of the document; if each line holds an object, set format='jsonl'",
            text.line,
        )


def _enter(text: _Window, key: str) -> bool:
    """Move to the value of a key of the object that begins here; False if it has no such key."""
    if text.peek() != "{":
        return False
    text.expect("{")
    if text.peek() == "}":
        return False
    while True:
        name = text.take_value()
        text.expect(":")
        if json.loads(name) == key:
            return True
        text.take_value()
        if text.peek() == "}":
            return False
        text.expect(",")


def _leave(text: _Window, key: str) -> None:
    """Move to the end of an object after the value of a key; raises `DocumentError` if that comes twice."""
    while text.peek() == ",":
        text.expect(",")
        line = text.line
        if json.loads(text.take_value()) == key:
            raise DocumentError(f"{key!r} occurs twice in one object", line)
        text.expect(":")
        text.take_value()
    text.expect("}")


def _elements(text: _Window) -> Iterator[tuple[Row, int]]:
    text.expect("[")
    if text.peek() == "]":
        text.expect("]")
        return
    for number in itertools.count(1):
        text.peek()
        line = text.line
        value = text.take_value()
        row = parse_row(value.encode("utf-8", "surrogateescape"), line)
        if isinstance(row, Refusal):
            row = row._replace(message=f"item {number}: {row.message}")
        yield row, len(value)
        if text.peek() == "]":
            text.expect("]")
            return
        text.expect(",")


class _Window:
    """The part of a document that is in memory, and the position in it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        # Only where a value ends is of interest: orjson reads it then, and refuses NaN.
        self._scan = json.JSONDecoder(parse_constant=len, parse_int=len, parse_float=len)
        self._text = ""
        self._at = 0
        self._ended = False
        self._lines, self._counted = 1, 0
        """The number of the line at an earlier position, and that position."""

    @property
    def line(self) -> int:
        """The number of the line at the position."""
        self._lines += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._lines

    def _load(self) -> bool:
        """Read further text; return whether there was any."""
        if self._ended:
            return False
        size = max(BLOCK, len(self._text) - self._at)  # doubled: a value is scanned again from its start
        data = self._stream.read(size)
        self._ended = not data
        more = self._decoder.decode(data, final=self._ended)
        self._lines, self._counted = self.line, 0
        self._text = self._text[self._at :] + more
        self._at = 0
        return not self._ended or bool(more)

    def peek(self) -> str:
        """Return the next character that is not blank, "" at the end, without taking it."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            assert blank is not None
            self._at = blank.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._load():
                return ""

    def expect(self, character: str) -> None:
        """Take a character; raises `DocumentError` if another one is next."""
        found = self.peek()
        if found != character:
            what = repr(found) if found else "the end of the file"
            raise DocumentError(f"not JSON: expected {character!r}, found {what}", self.line)
        self._at += 1

    def take_value(self) -> str:
        """Take one JSON value; raises `DocumentError` if there is none."""
        self.peek()
        while True:
            try:
                _, end = self._scan.raw_decode(self._text, self._at)
                length = end - self._at
                # A number may go on in what is not read yet.
                if end < len(self._text) or not self._load():
                    value = self._text[self._at : self._at + length]
                    self._at += length
                    return value
            except (ValueError, RecursionError) as error:
                if len(self._text) - self._at > MAX_VALUE:
                    reason = f"a value is longer than {MAX_VALUE >> 20} million characters"
                    raise DocumentError(reason, self.line) from None
                if isinstance(error, RecursionError):
                    raise DocumentError("not JSON: nested too deep", self.line) from None
                if not self._load():
                    raise DocumentError(f"not JSON: {_reason(error)}", self.line) from None


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)
