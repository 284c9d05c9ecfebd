"""Records as CSV, with a column for each top-level key.

A cell is text unless it reads as JSON; text that would read as JSON is written as a JSON string. An
empty cell is an absent field. A key that could be taken for another heading has the prefix `data:`.
"""

from __future__ import annotations

import csv
import io
from typing import IO, Any, NamedTuple

import orjson

from isthmus.backends.files.formats.dump import ABSENT, PREFIX, decode_cell
from isthmus.cli._formats.spill import ID, METADATA, Spill


class CSVStyle(NamedTuple):
    """How cells are written."""

    null: str | None = None
    """The cell of nulls and absent fields, in place of `null` and an empty one."""
    plain: bool = False
    """Whether the cells are data alone, without ids, and text is as it is: for other programs."""


def write_csv(spill: Spill, file: IO[bytes], style: CSVStyle) -> None:
    """Write spilled records."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\r\n")
    keys = list(spill.columns)
    if style.plain:
        writer.writerow(keys)
        for _, data, _ in spill.rows():
            writer.writerow([_encode_plain(data.get(key), style.null or "") for key in keys])
        text.detach()
        return
    headings = [PREFIX + key if key in (ID, METADATA) or key.startswith(PREFIX) else key for key in keys]
    writer.writerow([ID, *([METADATA] if spill.has_metadata else []), *headings])
    for id, data, metadata in spill.rows():
        row = [id, *([_encode_cell(metadata or ABSENT)] if spill.has_metadata else [])]
        writer.writerow(row + [_encode_cell(data.get(key, ABSENT), style.null) for key in keys])
    text.detach()


def _encode_cell(value: Any, null: str | None = None) -> str:
    """Return a cell that reads as the value; text that is equal to `null` is a JSON string."""
    if null is not None and (value is None or value is ABSENT):
        return null
    if value is ABSENT:
        return ""
    if isinstance(value, str) and value != null and decode_cell(value) is value:
        return value
    return orjson.dumps(value).decode()


def _encode_plain(value: Any, null: str) -> str:
    """Return text as it is, and other values as JSON."""
    if value is None:
        return null
    return value if isinstance(value, str) else orjson.dumps(value).decode()
