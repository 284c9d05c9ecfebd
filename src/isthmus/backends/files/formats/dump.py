"""Rows of tables that `isthmus dump` wrote, as records with id, data and metadata.

In its CSV a cell is text unless it reads as JSON, and an empty cell is an absent field. A key that could
be taken for another heading has the prefix `data:`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from isthmus._values import INT_MAX, INT_MIN
from isthmus.backends.files.formats.json_text import parse_json

ID, METADATA = "_id", "_metadata"
PREFIX = "data:"
ABSENT: Any = object()


def decode_cells(cells: Mapping[str, str]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return id (None without one), data and metadata of a row by its headings."""
    metadata = decode_cell(cells.get(METADATA, ""))
    data = {
        key.removeprefix(PREFIX): value
        for key, cell in cells.items()
        if key not in (ID, METADATA) and (value := decode_cell(cell)) is not ABSENT
    }
    return cells.get(ID) or None, data, metadata if isinstance(metadata, dict) else {}


def decode_cell(cell: str) -> Any:
    """Return the value of a cell, `ABSENT` for an empty one."""
    if cell == "":
        return ABSENT
    try:
        value = parse_json(cell)
    except orjson.JSONDecodeError:
        return cell
    # A number of so many digits is an id or a code, which no number of a record could hold.
    return cell if type(value) is int and not INT_MIN <= value <= INT_MAX else value


def decode_columns(
    row: Mapping[str, Any], marks: Mapping[str, Mapping[bytes, bytes]]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return id, data and metadata of a row of Parquet by the metadata of its fields.

    Columns of a file from elsewhere, which have no marks, are data.
    """
    id: Any = None
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for name, value in row.items():
        mark = marks[name]
        is_data = b"isthmus.key" in mark
        if name == ID and not is_data:
            id = value
        elif name == METADATA and not is_data:
            metadata = parse_json(value) if value else {}
        elif value is not None:
            key = mark.get(b"isthmus.key", name.encode()).decode()
            data[key] = parse_json(value) if mark.get(b"isthmus") == b"json" else value
        elif b"isthmus.null" in mark:
            data[mark[b"isthmus.key"].decode()] = None
    return id, data, metadata
