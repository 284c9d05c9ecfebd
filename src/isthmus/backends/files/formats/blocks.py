"""Bytes of a text file in blocks that end where a line ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

BLOCK = 1 << 19
"""Bytes read at once: a few blocks of CSV with what is made of them are in memory."""
MAX_ROW = 16 << 20
"""The most bytes of one line, and of one row of CSV; a longer one is refused."""


def skip(stream: BinaryIO, offset: int, *, seekable: bool) -> None:
    """Move to an offset from the beginning: by a seek, or by reading what is before it."""
    if seekable:
        stream.seek(offset)
        return
    while offset > 0:
        block = stream.read(min(offset, BLOCK))
        if not block:
            return
        offset -= len(block)


def line_blocks(stream: BinaryIO, newline: bytes = b"\n") -> Iterator[tuple[bytes | None, int]]:
    """Yield whole lines in blocks of about 512 KB with their number of bytes; None for a line above 16 MB."""
    parts: list[bytes] = []
    size = 0
    while data := stream.read(BLOCK):
        cut = data.rfind(newline) + 1
        if cut == 0:
            size += len(data)
            if size <= MAX_ROW:
                parts.append(data)
            continue
        if size > MAX_ROW:  # the end of the long line
            first = data.find(newline) + 1
            yield None, size + first
            data, cut = data[first:], cut - first
            parts, size = [], 0
        if cut:
            parts.append(data[:cut])
            block = b"".join(parts)
            yield block, len(block)
        parts = [data[cut:]]
        size = len(data) - cut
    if size > MAX_ROW:
        yield None, size
    elif size:
        yield b"".join(parts), size
