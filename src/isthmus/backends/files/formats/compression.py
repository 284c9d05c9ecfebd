"""Compressed files, read as a stream."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from isthmus._core.registry import import_driver

_PIECE = 1 << 16
"""Bytes that are decompressed at once."""
SUFFIXES = {".gz": "gz", ".gzip": "gz", ".zst": "zst", ".zstd": "zst"}

_MARKS = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst"}
"""The bytes with which a compressed file begins."""
MARK_SIZE = max(map(len, _MARKS))


class _Borrowed:
    """A compressed stream that stays open when the decompressor over it is closed."""

    closed = False
    is_empty = True
    """Whether nothing has been read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.is_empty = self.is_empty and not data
        return data

    def close(self) -> None:
        self.closed = True


class _UntilDamage:
    """A decompressor that returns all that precedes damage before it raises the error.

    gzip and Arrow drop what one call has decompressed when they meet damage in it. A file of no bytes, which
    even compressed contents of none have, is damage that they do not notice.
    """

    def __init__(self, source: _Borrowed, read: Callable[[int], bytes]) -> None:
        self._source = source
        self._read = read
        self._damage: Exception | None = None

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0 and self._damage is None:
            try:
                part = self._read(min(size, _PIECE))
            except Exception as error:
                if describe_damage(error) is None:
                    raise
                self._damage = error
                break
            if not part:
                if self._source.is_empty:
                    raise EOFError
                break
            parts.append(part)
            size -= len(part)
        if self._damage is not None and not parts:
            raise self._damage
        return b"".join(parts)


def find_compression(start: bytes) -> str | None:
    """Return the compression of a file that begins with these bytes; None if there is none."""
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)


def decompress(stream: BinaryIO, compression: str | None) -> BinaryIO:
    """Return the contents of a compressed stream; raises `MissingExtraError` for zst without pyarrow."""
    if compression is None:
        return stream
    source = _Borrowed(stream)
    if compression == "gz":
        opened: Any = gzip.GzipFile(fileobj=cast("BinaryIO", source), mode="rb")
        return cast("BinaryIO", _UntilDamage(source, opened.read1))
    arrow: Any = import_driver("pyarrow", extra="files")
    opened = arrow.CompressedInputStream(arrow.PythonFile(source, mode="r"), "zstd")
    return cast("BinaryIO", _UntilDamage(source, opened.read))


def describe_damage(error: Exception) -> str | None:
    """Return what is wrong with a compressed file, None if the error is about something else."""
    if isinstance(error, EOFError) or (isinstance(error, OSError) and "Truncated compressed" in str(error)):
        # The second is pyarrow's, which has no class of its own.
        return "the compressed file ends early"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return f"not gzip, or damaged: {error}"
    if type(error).__name__ == "ZstdError" or "ZSTD" in str(error) or "zstd" in str(error).lower():
        return f"not zstd, or damaged: {error}"
    return None
