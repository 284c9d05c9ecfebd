"""The multiset of values that a path yields in a record (meaning §3)."""

from __future__ import annotations

from typing import Any

from isthmus._path import Path, Root
from isthmus._record import Record
from isthmus._times import format_datetime
from isthmus._values import JSON


def values_at(record: Record, path: Path) -> list[JSON]:
    """Return the values at the path: keys followed, lists entered at every depth, nulls dropped."""
    values: list[JSON] = []
    _collect(_start(record, path), path.keys, 0, values)
    return values


def values_in(value: JSON, keys: tuple[str, ...]) -> list[JSON]:
    """Return the values that the keys lead to from a JSON value."""
    values: list[JSON] = []
    _collect(value, keys, 0, values)
    return values


def value_at(record: Record, path: Path) -> JSON:
    """Return the whole value at the path, through objects only; None if there is none."""
    return value_in(_start(record, path), path.keys)


def value_in(value: JSON, keys: tuple[str, ...]) -> JSON:
    """Return the whole value at the keys from a JSON value, through objects only; None if there is none."""
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def _collect(value: Any, keys: tuple[str, ...], index: int, values: list[JSON]) -> None:
    if isinstance(value, list):
        for item in value:
            _collect(item, keys, index, values)
    elif index == len(keys):
        if value is not None:
            values.append(value)
    elif isinstance(value, dict) and keys[index] in value:
        _collect(value[keys[index]], keys, index + 1, values)


def _start(record: Record, path: Path) -> Any:
    match path.root:
        case Root.DATA:
            return record._queried
        case Root.METADATA:
            return record.metadata
        case Root.ID:
            return record.id
        case Root.VERSION:
            return record.version
        case Root.CREATED_AT:
            return None if record.created_at is None else format_datetime(record.created_at)
        case Root.UPDATED_AT:
            return None if record.updated_at is None else format_datetime(record.updated_at)
        case Root.SCORE:
            return None
