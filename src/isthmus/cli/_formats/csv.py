"""Values as CSV cells, so that what is read back is what was written.

A cell is text unless it reads as JSON; text that would read as JSON is written with JSON's quotes.
An absent field is an empty cell.
"""

from __future__ import annotations

from typing import Any

import orjson

ABSENT: Any = object()


def to_cell(value: Any) -> str:
    """Return the cell of a value."""
    if value is ABSENT:
        return ""
    if isinstance(value, str):
        return value if value and not _is_json(value) else orjson.dumps(value).decode()
    return orjson.dumps(value).decode()


def from_cell(text: str) -> Any:
    """Return the value of a cell."""
    if text == "":
        return ABSENT
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
