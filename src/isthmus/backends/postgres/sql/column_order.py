"""Pages in an order of declared columns; odd rows are ordered in the general form."""

from __future__ import annotations

from typing import Any

from isthmus._core.executor import PageRequest
from isthmus._path import Root
from isthmus._query.ast import SortKey
from isthmus._query.order import BOOL, NONE, NUMBER, TEXT, Position
from isthmus.backends.postgres.sql.column_filter import all_columns, both, by_row
from isthmus.backends.postgres.sql.columns import IS_ODD, NOT_ODD, StoredColumn
from isthmus.backends.postgres.sql.fields import COLUMNS, PREFIX_LENGTH
from isthmus.backends.postgres.sql.filter import NOTHING
from isthmus.backends.postgres.sql.order import after_position, order_by, sort_value
from isthmus.backends.postgres.sql.statement import Parameter, Parameters
from isthmus.backends.postgres.sql.table import Table, is_indexed

_RANKS = {"bool": BOOL, "number": NUMBER, "text": TEXT}


def keys_on_columns(table: Table, order: tuple[SortKey, ...] | None) -> tuple[SortKey, ...]:
    """Return the keys of an order up to the id; none if one of them has no column."""
    keys = []
    for key in order or ():
        if key.path.root is Root.ID:
            break
        keys.append(key)
    return tuple(keys) if all_columns(table, [key.path for key in keys]) else ()


def sort_by_columns(
    table: Table, request: PageRequest, keys: tuple[SortKey, ...], size: int, params: Parameters
) -> str:
    """Return the select of the first `size` rows after the request's position, in order."""
    order = request.order or ()
    position = None if request.after is None else request.after.position
    limit = params.bigint(size)
    usual, odd = by_row(table, request.where, params)
    branches = _usual_branches(table, order, keys, usual, position, limit, params)
    if odd != NOTHING:
        branches.append(_odd_branch(table, order, keys, odd, position, limit, params))
    if not branches:
        return f"SELECT {COLUMNS} FROM {table.sql} AS t WHERE FALSE"

    def by(row: str) -> str:
        return order_by(order, [f"{row}.v{n}" for n in range(len(order))], f"{row}.id")

    # OFFSET 0 keeps the planner from joining by a scan of the table.
    return (
        f"SELECT {COLUMNS} FROM (SELECT * FROM ({' UNION ALL '.join(branches)}) AS t"
        f" ORDER BY {by('t')} LIMIT {limit}) AS q"
        f" CROSS JOIN LATERAL (SELECT * FROM {table.sql} AS t WHERE t.id = q.id OFFSET 0) AS t"
        f" ORDER BY {by('q')}"
    )


def _usual_branches(
    table: Table,
    order: tuple[SortKey, ...],
    keys: tuple[SortKey, ...],
    where: str,
    position: Position | None,
    limit: Parameter,
    params: Parameters,
) -> list[str]:
    """Return the selects of ids and sort values of rows that are not odd.

    Where an index serves the first key these are two: an index has no values at one end, so that it
    cannot serve them in the same scan in each direction.
    """
    if where == NOTHING:
        return []
    stored = [table.columns[key.path] for key in keys]
    after = "TRUE" if position is None else _after(order, stored, position, params)
    first = stored[0]
    indexed = is_indexed(table.indexed, first)
    terms = [_term(key, column) for key, column in zip(keys, stored, strict=True)]
    tie = "t.id DESC" if len(keys) < len(order) and order[len(keys)].descending else "t.id ASC"
    if not indexed:
        return [_branch(table, stored, both(where, NOT_ODD, after), [*terms, tie], limit)]
    down = "DESC" if keys[0].descending else "ASC"
    prefix = [f"{first.text_prefix} {down}"] if first.column.kind == "text" else []
    bound = "TRUE" if position is None else _bound(keys[0], first, position, params)
    valued = both(where, NOT_ODD, f"{first.sql} IS NOT NULL", bound, after)
    key = first.text_prefix if first.column.kind == "text" else first.sql
    none = both(where, NOT_ODD, f"{key} IS NULL", after)
    return [
        _branch(table, stored, valued, [*prefix, f"{first.sql} {down}", *terms[1:], tie], limit),
        _branch(table, stored, none, [*terms[1:], tie], limit),
    ]


def _term(key: SortKey, stored: StoredColumn) -> str:
    direction = "DESC" if key.descending else "ASC"
    return f"{stored.sql} {direction} NULLS {'FIRST' if key.nulls_first else 'LAST'}"


def _branch(table: Table, stored: list[StoredColumn], where: str, order: list[str], limit: Parameter) -> str:
    columns = "".join(f", {column.sql} AS c{n}" for n, column in enumerate(stored))
    values = "".join(f", to_jsonb(b.c{n}) AS v{n}" for n in range(len(stored)))
    # The values as jsonb are for the few rows that are left.
    return (
        f"(SELECT b.id{values} FROM (SELECT t.id{columns} FROM {table.sql} AS t WHERE {where}"
        f" ORDER BY {', '.join(order)} LIMIT {limit}) AS b)"
    )


def _odd_branch(
    table: Table,
    order: tuple[SortKey, ...],
    keys: tuple[SortKey, ...],
    where: str,
    position: Position | None,
    limit: Parameter,
    params: Parameters,
) -> str:
    columns = "".join(
        f", {sort_value(key.path, largest=key.descending)} AS v{n}" for n, key in enumerate(keys)
    )
    names = [f"t.v{n}" for n in range(len(order))]
    after = "" if position is None else f" WHERE {after_position(order, position, names, params)}"
    found = f"(SELECT * FROM {table.sql} AS t WHERE {both(IS_ODD, where)} LIMIT ALL)"
    return (
        f"(SELECT * FROM (SELECT t.id{columns} FROM {found} AS t LIMIT ALL) AS t{after}"
        f" ORDER BY {order_by(order, names)} LIMIT {limit})"
    )


def _after(
    order: tuple[SortKey, ...], stored: list[StoredColumn], position: Position, params: Parameters
) -> str:
    """Return the condition that a row that is not odd comes after a position."""
    equal: list[str] = []
    alternatives: list[str] = []
    last, sign = position[-1], ">"
    for key, mark, column in zip(order, position, [*stored, None], strict=False):
        if column is None:
            if key.path.root is Root.ID:
                last, sign = mark[1], "<" if key.descending else ">"
            break
        after, tie = _compare_to(key, column, mark[0], mark[1], params)
        if after:
            alternatives.append(both(*equal, f"({' OR '.join(after)})"))
        if tie is None:
            return _some(alternatives)
        equal.append(tie)
    alternatives.append(both(*equal, f"t.id {sign} {params.text(last)}"))
    return _some(alternatives)


def _compare_to(
    key: SortKey, stored: StoredColumn, rank: int, mark: Any, params: Parameters
) -> tuple[list[str], str | None]:
    """Return conditions of which one holds if a value comes after a position's, and the one of a tie."""
    column, own = stored.sql, _RANKS[stored.column.kind]
    if rank == NONE:
        return ([f"{column} IS NOT NULL"] if key.nulls_first else []), f"{column} IS NULL"
    after = [] if key.nulls_first else [f"{column} IS NULL"]
    if rank == own:
        edge = _bind(stored, mark, params)
        return [f"{column} {'<' if key.descending else '>'} {edge}", *after], f"{column} = {edge}"
    if (own < rank) is key.descending:
        after.append(f"{column} IS NOT NULL")
    return after, None


def _bound(key: SortKey, stored: StoredColumn, position: Position, params: Parameters) -> str:
    """Return a bound that every row with a value after the position keeps, for the index."""
    rank, mark = position[0]
    if rank != _RANKS[stored.column.kind]:
        return "TRUE"
    sign = "<=" if key.descending else ">="
    if stored.column.kind == "text":
        return f"{stored.text_prefix} {sign} {params.text(mark[:PREFIX_LENGTH])}"
    return f"{stored.sql} {sign} {_bind(stored, mark, params)}"


def _bind(stored: StoredColumn, value: Any, params: Parameters) -> Parameter:
    match stored.column.kind:
        case "number":
            return params.numeric(value)
        case "bool":
            return params.bool(value)
        case _:
            return params.text(value)


def _some(conditions: list[str]) -> str:
    return f"({' OR '.join(f'({one})' for one in conditions)})" if conditions else NOTHING
