"""JSON lines: an object on each line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from isthmus.backends.files.formats.blocks import MAX_ROW, line_blocks
from isthmus.backends.files.formats.dialect import Checkpoint
from isthmus.backends.files.formats.json_text import parse_row
from isthmus.backends.files.rows import Refusal, Row, RowChunk

_BOM = b"\xef\xbb\xbf"


def read_json_lines(stream: BinaryIO, start: Checkpoint) -> Iterator[tuple[RowChunk, Checkpoint]]:
    """Yield rows block by block, each with where the next block begins; blank lines are no rows."""
    row, offset, line = start.row, start.offset, start.line
    for block, size in line_blocks(stream):
        rows: list[Row] = []
        numbers: list[int] = []
        if block is None:
            numbers.append(line)
            rows.append(Refusal(f"the line is longer than {MAX_ROW >> 20} MB", line))
            line += 1
        else:
            if offset == 0:
                block = block.removeprefix(_BOM)
            lines = block.split(b"\n")
            for number, text in enumerate(lines, line):
                if text and not text.isspace():
                    numbers.append(number)
                    rows.append(parse_row(text, number))
            line += len(lines) - 1
        offset += size
        chunk = RowChunk(row, rows, numbers)
        row += len(rows)
        yield chunk, Checkpoint(row, offset, line)
