"""Records as CSV, with a column for each top-level key.

A cell is text unless it reads as JSON; text that would read as JSON is written as a JSON string. An
empty cell is an absent field. A key that could be taken for another heading has the prefix `data:`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO, Any

import orjson

from isthmus.backends.files.formats.dump import ABSENT, PREFIX, decode_cell, decode_cells
from isthmus.cli._formats.spill import ID, METADATA, Spill

Row = tuple[Any, dict[str, Any], dict[str, Any]]


def write_csv(spill: Spill, file: IO[bytes]) -> None:
    """Write spilled records."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\r\n")
    keys = list(spill.columns)
    headings = [PREFIX + key if key in (ID, METADATA) or key.startswith(PREFIX) else key for key in keys]
    writer.writerow([ID, *([METADATA] if spill.has_metadata else []), *headings])
    for id, data, metadata in spill.rows():
        row = [id, *([_encode_cell(metadata or ABSENT)] if spill.has_metadata else [])]
        writer.writerow(row + [_encode_cell(data.get(key, ABSENT)) for key in keys])
    text.detach()


def read_csv(file: IO[bytes]) -> Iterator[tuple[int, Row | str]]:
    """Yield the line number of each row with its id, data and metadata, or with an error message."""
    csv.field_size_limit(2**31 - 1)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    rows = csv.reader(text, strict=True)
    try:
        headings = next(rows, [])
        while (cells := next(rows, None)) is not None:
            if cells and len(cells) != len(headings):
                yield rows.line_num, f"{len(cells)} cells under {len(headings)} headings"
            elif cells:
                yield rows.line_num, decode_cells(dict(zip(headings, cells, strict=True)))
    except (csv.Error, UnicodeDecodeError) as error:
        # It is unknown where the next row begins, so reading ends here.
        yield rows.line_num + 1, f"not CSV: {error}"
    finally:
        text.detach()


def _encode_cell(value: Any) -> str:
    if value is ABSENT:
        return ""
    if isinstance(value, str) and decode_cell(value) is value:
        return value
    return orjson.dumps(value).decode()
