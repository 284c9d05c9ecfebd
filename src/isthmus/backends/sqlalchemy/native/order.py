"""Orders of a table's rows, and positions in them, as SQL (meaning §4 and §8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from isthmus._path import Path, Root
from isthmus._query.ast import SortKey
from isthmus._query.order import BOOL, NONE, NUMBER, TEXT, Position
from isthmus._values import JSON
from isthmus.backends._tables.binding import bind_key
from isthmus.backends._tables.column import Kind
from isthmus.backends._tables.keys import key_of
from isthmus.backends._tables.leaves import canonical_kind
from isthmus.backends.sqlalchemy.native.filter import missing_column
from isthmus.backends.sqlalchemy.native.statement import EVERY_ROW, NO_ROW, ValueBinder
from isthmus.backends.sqlalchemy.native.table import ColumnSQL, ReflectedTable
from isthmus.errors import QueryError

_SORTED_BY_INDEX = (Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.BOOL, Kind.DATE, Kind.TIMESTAMP)
_RANKS = {"bool": BOOL, "number": NUMBER, "text": TEXT}


def sorts(table: ReflectedTable, order: Sequence[SortKey]) -> bool:
    """Return whether the store sorts as meaning §4 says, by id last."""
    return all(column.value is not None for column in table.keys) and all(
        _sorts_by(table, key.path) for key in order
    )


def _sorts_by(table: ReflectedTable, path: Path) -> bool:
    if path.root is Root.ID or missing_column(table, path):
        return True
    if path.root is not Root.DATA or not path.keys:
        return False
    column = table.by_name[path.keys[0]]
    if canonical_kind(column.column) is None:
        return False
    return len(path.keys) > 1 or column.value is not None


class _Step(NamedTuple):
    """One value that rows are sorted by."""

    column: ColumnSQL
    descending: bool
    nulls_first: bool
    is_key: bool = False

    @property
    def may_miss(self) -> bool:
        return not self.is_key and (self.column.column.nullable or self.column.valid is not None)

    def terms(self) -> list[str]:
        """Return its part of ORDER BY."""
        direction = " DESC" if self.descending else ""
        value = _key_value(self.column) if self.is_key else str(self.column.value)
        missing = [f"({value} IS NULL){' DESC' if self.nulls_first else ''}"] if self.may_miss else []
        return [*missing, value + direction]


def _key_value(column: ColumnSQL) -> str:
    """Return what a key sorts by. One without a canonical form is an error wherever it is read."""
    return column.source if column.column.kind in _SORTED_BY_INDEX and column.serves else str(column.value)


def _steps(table: ReflectedTable, order: Sequence[SortKey]) -> list[_Step]:
    steps: list[_Step] = []
    for key in order:
        if key.path.root is Root.ID:  # ids are unique: the keys after one are irrelevant
            return [*steps, *_id_steps(table, descending=key.descending)]
        column = _scalar(table, key.path)
        if column is not None:
            steps.append(_Step(column, key.descending, key.nulls_first))
    return [*steps, *_id_steps(table)]


def _scalar(table: ReflectedTable, path: Path) -> ColumnSQL | None:
    """Return the column that a path sorts by; None if no row has a value there."""
    return table.by_name.get(path.keys[0]) if path.root is Root.DATA and len(path.keys) == 1 else None


def _id_steps(table: ReflectedTable, *, descending: bool = False) -> list[_Step]:
    return [_Step(column, descending, nulls_first=False, is_key=True) for column in table.keys]


def order_by(table: ReflectedTable, order: Sequence[SortKey]) -> str:
    """Return the `ORDER BY` terms, the key's last."""
    return ", ".join(term for step in _steps(table, order) for term in step.terms())


def after_position(
    table: ReflectedTable, order: Sequence[SortKey], position: Position, binder: ValueBinder
) -> str:
    """Return the condition that a row comes after a position.

    Raises `QueryError` for a position that the table's columns no longer admit.
    """
    marks: list[Any] = []
    ends_by_id = False
    for key, mark in zip(order, position, strict=False):
        if key.path.root is Root.ID:
            marks += _key_marks(table, mark[1])
            ends_by_id = True
            break
        if _scalar(table, key.path) is not None:
            marks.append(mark)
    if not ends_by_id:
        marks += _key_marks(table, position[-1])
    equal: list[str] = []
    alternatives: list[str] = []
    for step, mark in zip(_steps(table, order), marks, strict=True):
        after, tie = _compare(step, mark, binder)
        if after is not None:
            alternatives.append(" AND ".join([*equal, after]))
        equal.append(tie)
    return "(" + " OR ".join(f"({part})" for part in alternatives) + ")" if alternatives else NO_ROW


def _key_marks(table: ReflectedTable, id: str) -> list[Any]:
    key = key_of(table.table, id)
    if key is None:
        raise QueryError(f"cursor: {id!r} is no key of {table.name!r}")
    return [
        (_RANKS[canonical_kind(column.column) or "text"], value)
        for column, value in zip(table.keys, key, strict=True)
    ]


def _compare(step: _Step, mark: tuple[int, JSON], binder: ValueBinder) -> tuple[str | None, str]:
    """Return the conditions that a row is after a position by one key (None: none is), and that it ties."""
    rank, edge = mark
    column = step.column
    value = _key_value(column) if step.is_key else str(column.value)
    if rank == NONE:
        return (f"{value} IS NOT NULL" if step.nulls_first else None), f"{value} IS NULL"
    if rank != _RANKS.get(canonical_kind(column.column) or ""):
        raise QueryError(f"cursor: the column {column.name!r} has changed since the cursor was made")
    end = _edge(column, value, edge, binder)
    after = f"{value} {'<' if step.descending else '>'} {end}"
    if step.may_miss and not step.nulls_first:
        after = f"({after} OR {value} IS NULL)"
    return after, f"{value} = {end}"


def _edge(column: ColumnSQL, value: str, edge: JSON, binder: ValueBinder) -> str:
    bind = column.bind if value == column.source else column.bind_canonical
    return bind(binder, bind_key(column.column, edge))


def by_key_order(table: ReflectedTable) -> str:
    """Return the `ORDER BY` of any total order: that of the key's index where it serves."""
    return ", ".join(_any_order(column) for column in table.keys)


def _any_order(column: ColumnSQL) -> str:
    by_index = column.serves and column.column.labels is None
    return column.source if by_index or column.value is None else column.value


def after_key(table: ReflectedTable, id: str, binder: ValueBinder) -> str:
    """Return the condition that a row comes after that of an id in `by_key_order`."""
    key = key_of(table.table, id)
    if key is None:
        raise QueryError(f"stream: {id!r} is no key of {table.name!r}")
    equal: list[str] = []
    alternatives: list[str] = []
    for column, part in zip(table.keys, key, strict=True):
        value = _any_order(column)
        end = _edge(column, value, part, binder)
        alternatives.append(" AND ".join([*equal, f"{value} > {end}"]))
        equal.append(f"{value} = {end}")
    return "(" + " OR ".join(f"({part})" for part in alternatives) + ")" if alternatives else EVERY_ROW
