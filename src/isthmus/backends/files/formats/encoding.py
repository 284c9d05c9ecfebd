"""Encodings of text files: found by a byte order mark, and wide ones read as UTF-8."""

from __future__ import annotations

import codecs
from typing import BinaryIO, cast

_WIDE = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def is_wide(encoding: str) -> bool:
    """Return whether lines of an encoding cannot be told by a byte."""
    return encoding.startswith(("utf-16", "utf-32", "utf-7", "utf_16", "utf_32", "utf_7"))


def find_encoding(head: bytes, setting: str | None) -> str:
    """Return the encoding: the setting, that of the byte order mark, or UTF-8."""
    if setting is not None:
        return setting
    return next((name for mark, name in _WIDE.items() if head.startswith(mark)), "utf-8")


def transcode(stream: BinaryIO, encoding: str) -> BinaryIO:
    """Return a stream as UTF-8 if its encoding is wide."""
    if not is_wide(encoding):
        return stream
    return cast("BinaryIO", _Transcoded(stream, encoding))


class _Transcoded:
    """A stream of text in one encoding, read as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._rest = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and not self._ended:
            data = self._stream.read(size)
            self._ended = not data
            self._rest += self._decoder.decode(data, final=self._ended).encode("utf-8", "surrogatepass")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
