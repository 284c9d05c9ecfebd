"""The total order of records (meaning §4), and positions in it, which cursors are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from isthmus._path import Path, Root
from isthmus._query.ast import SortKey
from isthmus._query.lookup import values_at
from isthmus._record import Record
from isthmus._values import JSON

NONE, BOOL, NUMBER, TEXT, OBJECT = -1, 0, 1, 2, 3
_BRACKETS: dict[type, int] = {bool: BOOL, int: NUMBER, float: NUMBER, str: TEXT, dict: OBJECT}

# One sort key's value in a record: its bracket and the value. Objects tie, so theirs is None.
SortValue: TypeAlias = tuple[int, Any]
# The sort values in order, then the id: where a record stands. JSON-able, so that a cursor keeps it.
Position: TypeAlias = tuple[Any, ...]


def sort_value(values: Iterable[JSON], *, largest: bool) -> SortValue:
    """Return the smallest (or largest) of the values found, in the cross-type order."""
    ranked = [type_rank(value) for value in values]
    if not ranked:
        return (NONE, None)
    return max(ranked, key=_rank) if largest else min(ranked, key=_rank)


def type_rank(value: JSON) -> SortValue:
    """Return a value with its place among the types."""
    rank = _BRACKETS[type(value)]
    return (rank, None if rank == OBJECT else value)


def _rank(value: SortValue) -> tuple[Any, ...]:
    return value if value[1] is not None else value[:1]


def cursor_position(record: Record, order: tuple[SortKey, ...]) -> Position:
    """Return where a stored record stands in the order: a sort value for each key, then the id.

    A sort value is a pair of the type's rank and the value: `(0, bool)`, `(1, number)`,
    `(2, text)`, `(3, None)` for any object, `(-1, None)` for a record without a value.
    """
    keys = (sort_value(values_at(record, key.path), largest=key.descending) for key in order)
    return (*keys, record.id)


@functools.total_ordering
class _Descending:
    """A value that is less than another one if it is greater."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Descending) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and bool(self.value == other.value)

    __hash__ = None  # type: ignore[assignment]


def sort_key(order: tuple[SortKey, ...], id_key: Callable[[str], Any] = str) -> Callable[[Position], Any]:
    """Return a key function on positions for `sorted`, `heapq` and the like.

    `id_key` is what ids sort by.
    """

    def key_of(position: Position) -> tuple[Any, ...]:
        return (*map(component_of, order, position), id_key(position[-1]))

    def component_of(key: SortKey, value: SortValue) -> tuple[Any, ...]:
        if value[0] == NONE:
            return (0,) if key.nulls_first else (2,)
        if key.path.root is Root.ID:
            value = (TEXT, id_key(value[1]))
        rank = _rank(tuple(value))
        return (1, _Descending(rank) if key.descending else rank)

    return key_of


def sort_records(records: Iterable[Record], order: tuple[SortKey, ...]) -> list[Record]:
    """Return the records sorted; decodes each only where a sort key needs it."""
    if not order:
        return sorted(records, key=lambda record: record.id or "")
    key = sort_key(order)
    return sorted(records, key=lambda record: key(cursor_position(record, order)))


BY_ID: tuple[SortKey, ...] = ()


def is_id(path: Path) -> bool:
    """Return whether the path is the record's id, after which no further sort key matters."""
    return path.root is Root.ID
