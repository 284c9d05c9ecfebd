"""The types of the values of one column, from which Parquet gets columns of its own types."""

from __future__ import annotations

import datetime as dt
from typing import Any

from isthmus._times import format_datetime

_KINDS = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "text",
    type(None): "null",
    list: "list",
    dict: "object",
}
_TIME_LENGTH = len("2026-01-01T00:00:00.000000Z")
_EXACT = 2**53
_MAX_DEPTH = 32


class ColumnType:
    """What the values of a key, or the items of its lists, have in common."""

    __slots__ = ("_depth", "_fields", "_item", "_ragged", "_times", "count", "kinds", "wide")

    def __init__(self, depth: int = 0) -> None:
        self.kinds: set[str] = set()
        """Of bool, int, float, text, null, list, object."""
        self.count = 0
        """The number of values."""
        self.wide = False
        """Whether an integer is beyond what a float holds exactly."""
        self._times = True
        """Whether every text is a time as isthmus writes it."""
        self._ragged = depth > _MAX_DEPTH
        """Whether objects differ in their keys: a struct cannot tell an absent field from a null."""
        self._item: ColumnType | None = None
        self._fields: dict[str, ColumnType] | None = None
        self._depth = depth

    def add(self, value: Any) -> None:
        """Take note of a value."""
        kind = _KINDS[type(value)]
        self.kinds.add(kind)
        self.count += 1
        if kind == "text":
            self._times = self._times and is_time(value)
        elif kind == "int":
            self.wide = self.wide or abs(value) > _EXACT
        elif kind == "list" and not self._ragged:
            item = self._item = self._item or ColumnType(self._depth + 1)
            for one in value:
                item.add(one)
        elif kind == "object" and not self._ragged:
            self._add_object(value)

    def _add_object(self, value: dict[str, Any]) -> None:
        if self._fields is None:
            self._fields = {key: ColumnType(self._depth + 1) for key in value}
        if not value or value.keys() != self._fields.keys():
            self._ragged = True
            return
        for key, field in self._fields.items():
            field.add(value[key])

    def to_arrow(self, pa: Any) -> Any:
        """Return the Arrow type that holds all values as they are; None if there is none."""
        kinds = self.kinds - {"null"}
        if kinds == {"bool"}:
            return pa.bool_()
        if kinds == {"int"}:
            return pa.int64()
        if kinds == {"float"} or (kinds == {"int", "float"} and not self.wide):
            return pa.float64()
        if kinds == {"text"}:
            return pa.timestamp("us", "UTC") if self._times else pa.string()
        if self._ragged:
            return None
        if kinds == {"list"} and self._item is not None:
            item = self._item.to_arrow_inside(pa)
            return None if item is None else pa.list_(item)
        if kinds == {"object"} and self._fields:
            fields = {key: field.to_arrow_inside(pa) for key, field in self._fields.items()}
            return None if None in fields.values() else pa.struct(list(fields.items()))
        return None

    def to_arrow_inside(self, pa: Any) -> Any:
        """Return the type inside of another one, where a column of nulls alone may have any."""
        return self.to_arrow(pa) if self.kinds - {"null"} else pa.string()


def is_time(text: str) -> bool:
    """Return whether a text is a time in UTC with six decimals, as isthmus writes times."""
    if len(text) != _TIME_LENGTH or text[10] != "T" or text[-1] != "Z":
        return False
    try:
        return format_datetime(dt.datetime.fromisoformat(text)) == text
    except ValueError:
        return False


def with_times(value: Any, type: Any, types: Any) -> Any:
    """Return a value with times in place of texts, where an Arrow type has them."""
    if value is None:
        return None
    if types.is_timestamp(type):
        return dt.datetime.fromisoformat(value)
    if types.is_list(type):
        return [with_times(one, type.value_type, types) for one in value]
    if types.is_struct(type):
        return {field.name: with_times(value[field.name], field.type, types) for field in type}
    return value
