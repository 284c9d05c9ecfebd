"""Compressed files, read as a stream."""

from __future__ import annotations

import gzip
import zlib
from typing import Any, BinaryIO, cast

from isthmus._core.registry import import_driver

SUFFIXES = {".gz": "gz", ".gzip": "gz", ".zst": "zst", ".zstd": "zst"}


class _Borrowed:
    """A stream that stays open when pyarrow closes the one over it."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)

    def close(self) -> None:
        self.closed = True


def decompress(stream: BinaryIO, compression: str | None) -> BinaryIO:
    """Return the contents of a compressed stream; raises `MissingExtraError` for zst without pyarrow."""
    if compression is None:
        return stream
    if compression == "gz":
        return cast("BinaryIO", gzip.GzipFile(fileobj=stream, mode="rb"))
    arrow: Any = import_driver("pyarrow", extra="files")
    return cast(
        "BinaryIO", arrow.CompressedInputStream(arrow.PythonFile(_Borrowed(stream), mode="r"), "zstd")
    )


def describe_damage(error: Exception) -> str | None:
    """Return what is wrong with a compressed file, None if the error is about something else."""
    if isinstance(error, EOFError):
        return "the compressed file ends early"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return f"not gzip, or damaged: {error}"
    if type(error).__name__ == "ZstdError" or "ZSTD" in str(error) or "zstd" in str(error).lower():
        return f"not zstd, or damaged: {error}"
    return None
