"""Records as CSV, with a column for each top-level key.

A cell is text unless it reads as JSON; text that would read as JSON is written as a JSON string. An
empty cell is an absent field. A key that could be taken for another heading has the prefix `data:`.
"""

from __future__ import annotations

import csv
import io
from typing import IO, Any

import orjson

from isthmus.backends.files.formats.dump import ABSENT, PREFIX, decode_cell
from isthmus.cli._formats.spill import ID, METADATA, Spill


def write_csv(spill: Spill, file: IO[bytes], null: str | None = None) -> None:
    """Write spilled records.

    `null` is the cell of nulls and of absent fields, in place of `null` and an empty one; text that
    is equal to it is written as a JSON string.
    """
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\r\n")
    keys = list(spill.columns)
    headings = [PREFIX + key if key in (ID, METADATA) or key.startswith(PREFIX) else key for key in keys]
    writer.writerow([ID, *([METADATA] if spill.has_metadata else []), *headings])
    for id, data, metadata in spill.rows():
        row = [id, *([_encode_cell(metadata or ABSENT)] if spill.has_metadata else [])]
        writer.writerow(row + [_encode_cell(data.get(key, ABSENT), null) for key in keys])
    text.detach()


def _encode_cell(value: Any, null: str | None = None) -> str:
    if null is not None and (value is None or value is ABSENT):
        return null
    if value is ABSENT:
        return ""
    if isinstance(value, str) and value != null and decode_cell(value) is value:
        return value
    return orjson.dumps(value).decode()
