"""Orders as `sort` clauses, and positions in them as `search_after` values.

Records that are not indexed, or have an object, at a sort path are recheck candidates; of the main
records each key is of its field's type or missing. A position may still be that of a candidate: a
number where the field holds text, or a number that is no double. It lies between two values of the
field, and is replaced by the last position before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isthmus._path import Path, Root
from isthmus._query.ast import SortKey
from isthmus._query.order import BOOL, NONE, NUMBER, TEXT, Position
from isthmus._values import INT_MAX, INT_MIN
from isthmus.backends.elasticsearch.layout import LONGEST_TEXT
from isthmus.backends.elasticsearch.read.filter import Compiler, is_field

_TYPE_RANK = {"boolean": BOOL, "double": NUMBER, "long": NUMBER, "keyword": TEXT, "date_nanos": TEXT}
_LAST_TEXT = "\U0010ffff" * 4_100  # above every indexed text: those have at most 8,191 UTF-16 units
_LAST_ID = "\U0010ffff" * 129  # an id has at most 512 bytes
_DOUBLE = 1.7976931348623157e308
_LOWEST = {
    "boolean": 0,
    "double": -_DOUBLE,
    "long": INT_MIN + 1,
    "keyword": "",
    "date_nanos": "1970-01-01T00:00:00Z",
}
_HIGHEST = {
    "boolean": 1,
    "double": _DOUBLE,
    "long": INT_MAX - 1,
    "keyword": _LAST_TEXT,
    "date_nanos": "2262-04-11T00:00:00Z",
}
_NANOS = "strict_date_optional_time_nanos"


@dataclass(frozen=True, slots=True)
class SortField:
    """One sort key with the type of its field; None if the path is not mapped."""

    key: SortKey
    field: str
    type: str | None

    def clause(self) -> dict[str, Any]:
        """Return the sort clause."""
        key = self.key
        options: dict[str, Any] = {"order": "desc" if key.descending else "asc"}
        if is_field(key.path):
            options["missing"] = "_first" if key.nulls_first else "_last"
            options["mode"] = "max" if key.descending else "min"
        if self.type == "date_nanos":
            options["format"] = _NANOS
        return {self.field: options}

    def missing_value(self) -> Any:
        """Return the value that stands for a missing one: the server's sentinel, null for text."""
        high = self.key.descending == self.key.nulls_first
        match self.type:
            case "double":
                return "Infinity" if high else "-Infinity"
            case "long" | "boolean":
                return INT_MAX if high else INT_MIN
        return None

    def edge(self, *, last: bool, values_only: bool) -> Any:
        """Return the first or last value of this key; a missing one too unless `values_only`."""
        if not values_only and is_field(self.key.path) and self.key.nulls_first != last:
            return self.missing_value()
        assert self.type is not None
        return (_HIGHEST if last != self.key.descending else _LOWEST)[self.type]


class SearchSort:
    """An order over one state of a mapping."""

    def __init__(self, order: Sequence[SortKey], compiler: Compiler) -> None:
        self.order = tuple(order)
        self.scored = any(key.path.root is Root.SCORE for key in order)
        self.keys = [SortField(key, compiler.field(key.path), compiler.type_of(key.path)) for key in order]

    def paths(self) -> list[Path]:
        """Return the paths at which an unindexed value makes a record a candidate."""
        return list(dict.fromkeys(key.path for key in self.order if is_field(key.path)))

    def clauses(self) -> list[dict[str, Any]]:
        """Return the `sort`; a key whose path is not mapped is left out."""
        clauses: list[dict[str, Any]] = []
        for key in self.keys:
            if key.key.path.root is Root.SCORE:
                clauses.append({"_score": {"order": "asc" if not key.key.descending else "desc"}})
            elif key.type is not None:
                clauses.append(key.clause())
        return [*clauses, {"id": {"order": "asc"}}]

    def after(self, position: Position) -> list[Any]:
        """Return the `search_after` values for the main records after a position."""
        values: list[Any] = []
        for number, key in enumerate(self.keys):
            rank, value = position[number]
            if key.type is None:
                # No main record has a value here.
                if rank != NONE:
                    return self._edge(values, number + 1, last=key.key.nulls_first)
                continue
            if rank == NONE:
                if not is_field(key.key.path):
                    return self._edge(values, number + 1, last=True)
                values.append(key.missing_value())
                continue
            native = _TYPE_RANK[key.type]
            if rank != native:
                last = (rank > native) != key.key.descending
                values.append(key.edge(last=last, values_only=True))
                return self._edge(values, number + 1, last=last)
            near, passed = _native(key, value)
            values.append(near)
            if passed is not None:
                return self._edge(values, number + 1, last=passed)
        return [*values, position[-1]]

    def _edge(self, values: list[Any], start: int, *, last: bool) -> list[Any]:
        """Return the first or last position among those that begin with `values`."""
        rest = [key.edge(last=last, values_only=False) for key in self.keys[start:] if key.type is not None]
        return [*values, *rest, _LAST_ID if last else ""]


def _native(key: SortField, value: Any) -> tuple[Any, bool | None]:
    """Return the value as the field holds it, or a neighbour and whether that is before the position."""
    descending = key.key.descending
    match key.type:
        case "boolean":
            return int(value), None
        case "double":
            near = float(value)
            # The position is just before or after its neighbour in this order.
            return near, None if near == value else (near < value) != descending
        case "long":
            if float(value) == math.inf or value > INT_MAX - 1:
                return INT_MAX - 1, not descending
            if value < INT_MIN + 1:
                return INT_MIN + 1, descending
            near = math.floor(value)
            return near, None if near == value else not descending
        case "keyword" if len(value) > LONGEST_TEXT:
            return value[:LONGEST_TEXT], not descending
    return value, None


def can_sort(order: Sequence[SortKey]) -> bool:
    """Return whether pages can come in this order."""
    for number, key in enumerate(order):
        root = key.path.root
        if root is Root.VERSION or (root is Root.METADATA and not key.path.keys):
            return False
        if root is Root.SCORE and number > 0:
            return False
    return True
