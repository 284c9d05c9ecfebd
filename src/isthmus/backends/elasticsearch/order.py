"""Orders as Elasticsearch sorts, and positions in them as `search_after`.

Records that are odd, or have an object, at a sort path are left out of the main answer, so in it
each key is of its field's type or missing. A position may all the same come from an aside record:
a number where the field holds text, or a number that is no double. It then lies between two values
of the field, and becomes the last place before it.
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
from isthmus.backends.elasticsearch.compile import Compiler, stored
from isthmus.backends.elasticsearch.layout import LONGEST_TEXT

_BRACKET = {"boolean": BOOL, "double": NUMBER, "long": NUMBER, "keyword": TEXT, "date_nanos": TEXT}
_LAST_TEXT = "\U0010ffff" * 4_100  # above every indexed text: those have at most 8,191 UTF-16 units
_LAST_ID = "\U0010ffff" * 129  # an id has at most 512 bytes
_DOUBLE = 1.7976931348623157e308
_LEAST = {
    "boolean": 0,
    "double": -_DOUBLE,
    "long": INT_MIN + 1,
    "keyword": "",
    "date_nanos": "1970-01-01T00:00:00Z",
}
_MOST = {
    "boolean": 1,
    "double": _DOUBLE,
    "long": INT_MAX - 1,
    "keyword": _LAST_TEXT,
    "date_nanos": "2262-04-11T00:00:00Z",
}
_NANOS = "strict_date_optional_time_nanos"


@dataclass(frozen=True, slots=True)
class Key:
    """One sort key with the type of its field; None if no main record has a value there."""

    key: SortKey
    field: str
    type: str | None

    def clause(self) -> dict[str, Any]:
        """Return the sort clause."""
        key = self.key
        options: dict[str, Any] = {"order": "desc" if key.descending else "asc"}
        if stored(key.path):
            options["missing"] = "_first" if key.nulls_first else "_last"
            options["mode"] = "max" if key.descending else "min"
        if self.type == "date_nanos":
            options["format"] = _NANOS
        return {self.field: options}

    def missing(self) -> Any:
        """Return what stands for a missing value: the server's own sentinels, null only for text."""
        high = self.key.descending == self.key.nulls_first
        match self.type:
            case "double":
                return "Infinity" if high else "-Infinity"
            case "long" | "boolean":
                return INT_MAX if high else INT_MIN
        return None

    def edge(self, *, last: bool, values_only: bool) -> Any:
        """Return the first or last place of this key, the missing ones left out on request."""
        if not values_only and stored(self.key.path) and self.key.nulls_first != last:
            return self.missing()
        assert self.type is not None
        return (_MOST if last != self.key.descending else _LEAST)[self.type]


class Sorting:
    """An order over one state of a mapping."""

    def __init__(self, order: Sequence[SortKey], compiler: Compiler) -> None:
        self.order = tuple(order)
        self.scored = any(key.path.root is Root.SCORE for key in order)
        self.keys = [Key(key, compiler.field(key.path), compiler.type_of(key.path)) for key in order]

    def paths(self) -> list[Path]:
        """Return the paths at which a record may be odd for this order."""
        return list(dict.fromkeys(key.path for key in self.order if stored(key.path)))

    def clauses(self) -> list[dict[str, Any]]:
        """Return the sort; a key that no main record has a value for is left out."""
        clauses: list[dict[str, Any]] = []
        for key in self.keys:
            if key.key.path.root is Root.SCORE:
                clauses.append({"_score": {"order": "asc" if not key.key.descending else "desc"}})
            elif key.type is not None:
                clauses.append(key.clause())
        return [*clauses, {"id": {"order": "asc"}}]

    def after(self, position: Position) -> list[Any]:
        """Return the `search_after` values for the main records beyond a position."""
        values: list[Any] = []
        for at, key in enumerate(self.keys):
            bracket, value = position[at]
            if key.type is None:
                # All main records are alike here: they have no value.
                if bracket != NONE:
                    return self._edge(values, at + 1, last=key.key.nulls_first)
                continue
            if bracket == NONE:
                if not stored(key.key.path):
                    return self._edge(values, at + 1, last=True)
                values.append(key.missing())
                continue
            native = _BRACKET[key.type]
            if bracket != native:
                last = (bracket > native) != key.key.descending
                values.append(key.edge(last=last, values_only=True))
                return self._edge(values, at + 1, last=last)
            near, passed = _native(key, value)
            values.append(near)
            if passed is not None:
                return self._edge(values, at + 1, last=passed)
        return [*values, position[-1]]

    def _edge(self, values: list[Any], start: int, *, last: bool) -> list[Any]:
        """Return the first or last place among those that agree on the values so far."""
        rest = [key.edge(last=last, values_only=False) for key in self.keys[start:] if key.type is not None]
        return [*values, *rest, _LAST_ID if last else ""]


def _native(key: Key, value: Any) -> tuple[Any, bool | None]:
    """Return the value as the field holds it; and if it holds a neighbour only, whether that is passed."""
    descending = key.key.descending
    match key.type:
        case "boolean":
            return int(value), None
        case "double":
            near = float(value)
            # The place is just before or after its neighbour in this order.
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


def sortable(order: Sequence[SortKey]) -> bool:
    """Return whether pages can come in this order."""
    for at, key in enumerate(order):
        root = key.path.root
        if root is Root.VERSION or (root is Root.METADATA and not key.path.keys):
            return False
        if root is Root.SCORE and at > 0:
            return False
    return True
