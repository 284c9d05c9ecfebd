"""Orders of a native table's rows, and positions in them, as SQL (meaning §4 and §8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus._path import Path, Root
from isthmus._query.ast import And, Between, Equal, Exists, In, Ordered, Predicate, SortKey
from isthmus._query.order import BOOL, NONE, NUMBER, TEXT, Position
from isthmus._values import JSON
from isthmus.backends._tables.binding import (
    bind_key,
    bind_value,
)
from isthmus.backends._tables.column import TableColumn
from isthmus.backends._tables.keys import key_of
from isthmus.backends._tables.leaves import ColumnComparison, canonical_kind, column_test
from isthmus.backends.postgres.native.catalog import NativeTable
from isthmus.backends.postgres.native.columns import (
    bind,
    has_ordered_index,
    is_comparable,
    is_total,
    key_value,
    sort_type,
    sort_value,
    source,
    type_of,
    valid,
    version_of,
)
from isthmus.backends.postgres.native.filter import missing_column
from isthmus.backends.postgres.sql.statement import Parameters
from isthmus.errors import QueryError

_RANKS = {"bool": BOOL, "number": NUMBER, "text": TEXT}


def sorts(table: NativeTable, path: Path) -> bool:
    """Return whether the server sorts by a path as meaning §4 says."""
    if path.root in (Root.ID, Root.VERSION) or missing_column(table, path):
        return True
    if path.root is not Root.DATA or not path.keys:
        return False
    column = table.table.by_name[path.keys[0]]
    if canonical_kind(column) is None:
        return False
    return len(path.keys) > 1 or is_comparable(column)


def _scalar(table: NativeTable, path: Path) -> TableColumn | None:
    """Return the column that a path sorts by; None if no row has a value there."""
    return table.table.by_name.get(path.keys[0]) if path.root is Root.DATA and len(path.keys) == 1 else None


def find_first_index(table: NativeTable, order: Sequence[SortKey]) -> TableColumn | None:
    """Return the column of the first sort key if its index has all rows in order but those without a value.

    None if the index has all of them in order, or cannot have them at all.
    """
    column = _scalar(table, order[0].path)
    if column is None or order[0].nulls_first or not has_ordered_index(column):
        return None
    return column if valid(column) is not None or (column.nullable and order[0].descending) else None


def compares(where: Predicate, column: TableColumn) -> bool:
    """Return whether each row that satisfies a condition has a value in a column, since it is compared."""
    terms = where.terms if isinstance(where, And) else (where,)
    return any(
        isinstance(term, Equal | In | Ordered | Between | Exists)
        and term.path == Path(Root.DATA, (column.name,))
        and isinstance(column_test(column, term), ColumnComparison)
        for term in terms
    )


def order_by(table: NativeTable, order: Sequence[SortKey], *, with_value: TableColumn | None = None) -> str:
    """Return the `ORDER BY` terms, the key's last; every row has a value in the column `with_value`."""
    parts: list[str] = []
    for key in order:
        direction = " DESC" if key.descending else ""
        if key.path.root is Root.ID:
            return ", ".join([*parts, *(value + direction for value in _id_values(table))])
        column = _scalar(table, key.path)
        if column is not None and column is with_value:
            parts.append(source(column) + direction)
        elif column is not None:
            parts.append(sort_value(column) + direction + _nulls(column, key))
        elif key.path.root is Root.VERSION:
            parts.append(f'{version_of(table)} COLLATE "C"{direction}')
    return ", ".join([*parts, *_id_values(table)])


def _nulls(column: TableColumn, key: SortKey) -> str:
    """Return where rows without a value go, unless there are none or it is the server's default."""
    if is_total(column) or key.descending == key.nulls_first:
        return ""
    return " NULLS FIRST" if key.nulls_first else " NULLS LAST"


def _id_values(table: NativeTable) -> list[str]:
    return [key_value(column) for column in table.table.key_columns]


def after_position(
    table: NativeTable, order: Sequence[SortKey], position: Position, params: Parameters
) -> str:
    """Return the condition that a row comes after a position.

    Raises `QueryError` for a position that the table's columns no longer admit.
    """
    equal: list[str] = []
    alternatives: list[str] = []
    for key, mark in zip(order, position, strict=False):
        if key.path.root is Root.ID:
            alternatives.append(_all([*equal, after_id(table, mark[1], params, descending=key.descending)]))
            return _some(alternatives)
        column = _scalar(table, key.path)
        if column is not None:
            after, tie = _compare_to(column, key, mark, params)
        elif key.path.root is Root.VERSION:
            value, edge = f'{version_of(table)} COLLATE "C"', bind(params, mark[1], "text")
            after, tie = f"{value} {'<' if key.descending else '>'} {edge}", f"{value} = {edge}"
        else:
            continue
        if after is not None:
            alternatives.append(_all([*equal, after]))
        equal.append(tie)
    alternatives.append(_all([*equal, after_id(table, position[-1], params)]))
    return _some(alternatives)


def after_id(table: NativeTable, id: str, params: Parameters, *, descending: bool = False) -> str:
    """Return the condition that a row's key comes after that of an id, in the order of ids."""
    key = _key(table, id)
    edges = [_edge(column, value, params) for column, value in zip(table.table.key_columns, key, strict=True)]
    return _row_comparison(_id_values(table), edges, "<" if descending else ">")


def after_key(table: NativeTable, id: str, params: Parameters) -> str:
    """Return the condition that a row's key comes after that of an id, in the order of the key's index."""
    edges = [
        bind(params, bind_key(column, value), type_of(column))
        for column, value in zip(table.table.key_columns, _key(table, id), strict=True)
    ]
    return _row_comparison([source(column) for column in table.table.key_columns], edges, ">")


def _key(table: NativeTable, id: str) -> tuple[JSON, ...]:
    key = key_of(table.table, id)
    if key is None:
        raise QueryError(f"cursor: {id!r} is no key of {table.name!r}")
    return key


def _row_comparison(values: Sequence[str], edges: Sequence[str], sign: str) -> str:
    if len(values) == 1:
        return f"{values[0]} {sign} {edges[0]}"
    return f"({', '.join(values)}) {sign} ({', '.join(edges)})"


def _compare_to(column: TableColumn, key: SortKey, mark: Any, params: Parameters) -> tuple[str | None, str]:
    """Return the conditions that a row is after a position by one key (None: none is), and that it ties."""
    value = sort_value(column)
    rank, edge = mark
    if rank == NONE:
        return (f"{value} IS NOT NULL" if key.nulls_first else None), f"{value} IS NULL"
    if rank != _RANKS.get(canonical_kind(column) or ""):
        raise QueryError(f"cursor: the column {column.name!r} has changed since the cursor was made")
    end = _edge(column, edge, params)
    after = f"{value} {'<' if key.descending else '>'} {end}"
    if not key.nulls_first and not is_total(column):
        after = f"({after} OR {value} IS NULL)"
    return after, f"{value} = {end}"


def _edge(column: TableColumn, value: Any, params: Parameters) -> str:
    """Bind a canonical value for a comparison with what the column sorts by."""
    type = sort_type(column)
    return bind(params, value if type == "text" else bind_value(column, value), type)


def _all(conditions: list[str]) -> str:
    return "(" + " AND ".join(conditions) + ")"


def _some(conditions: list[str]) -> str:
    return "(" + " OR ".join(conditions) + ")"
