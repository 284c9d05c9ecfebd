"""Compiles reads of a native table to statements."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus._core.executor import PageRequest
from isthmus._path import Root
from isthmus._query.ast import TRUE, Predicate
from isthmus._query.order import NONE
from isthmus._values import JSON
from isthmus.backends._tables.binding import (
    bind_value,
)
from isthmus.backends._tables.column import TableColumn
from isthmus.backends.postgres.native.catalog import NativeTable
from isthmus.backends.postgres.native.columns import bind, row_columns, source, type_of, valid
from isthmus.backends.postgres.native.filter import NativeFilter
from isthmus.backends.postgres.native.order import (
    after_id,
    after_key,
    after_position,
    compares,
    find_first_index,
    order_by,
)
from isthmus.backends.postgres.native.record import RowReader
from isthmus.backends.postgres.sql.statement import Parameters, Statement

# A larger limit is as good as none, and its sum with an offset might not fit 64 bits.
_UNLIMITED = 2**40


def columns_of(request: PageRequest) -> list[str] | None:
    """Return the names of the columns that a page needs; None if it needs all."""
    if request.select is None:
        return None
    paths = [path for path in request.select if path.root is Root.DATA]
    return [path.keys[0] for path in paths] if all(path.keys for path in paths) else None


def select_page(table: NativeTable, reader: RowReader, request: PageRequest, *, ahead: int = 1) -> Statement:
    """Return the select of a page and `ahead` more rows, which show whether there is a next page."""
    params = Parameters()
    size = request.size_up_to(_UNLIMITED) + ahead
    limited = size < _UNLIMITED
    limit = f" LIMIT {params.bigint(size)}" if limited else ""
    offset = f" OFFSET {params.bigint(request.offset)}" if request.offset else ""
    if request.for_update or not limited or request.order is None:
        where, order = _where_of(table, request, params), _order_of(table, request)
        lock = " FOR UPDATE OF t" if request.for_update else ""
        return Statement(
            f"SELECT {reader.select} FROM {table.sql} AS t{where}{order}{limit}{offset}{lock}", params.args
        )
    column = find_first_index(table, request.order) if request.order else None
    if column is not None and not compares(request.where, column):
        rows = _two_parts(table, request, column, size + request.offset, params)
        order = _order_of(table, request)
        return Statement(f"{rows} SELECT {reader.select} FROM r AS t{order}{limit}{offset}", params.args)
    where = " AND ".join([_where_of(table, request, params), *_start_of(request, column, params)])
    order = _order_of(table, request, with_value=column)
    rows = f"(SELECT {row_columns(table)} FROM {table.sql} AS t{where}{order}{limit}{offset})"
    # Values are made of the rows that are left, not of all that are sorted.
    return Statement(f"SELECT {reader.select} FROM {rows} AS t{order}", params.args)


def _two_parts(
    table: NativeTable, request: PageRequest, column: TableColumn, size: int, params: Parameters
) -> str:
    """Return the rows `r`: those with a value in the first sort key, as its index has them, then the others.

    The second part is executed only if the first has too few rows.
    """
    most = params.bigint(size)
    order = request.order or ()
    conditions = [] if request.where == TRUE else [NativeFilter(table, params).condition(request.where)]
    position = None if request.after is None else request.after.position
    if position is not None:
        conditions.append(after_position(table, order, position, params))
    value = valid(column) or f"{source(column)} IS NOT NULL"
    first = [*conditions, value, *_start_of(request, column, params)]
    columns = row_columns(table)
    others = [f"({value}) IS NOT TRUE", f"(SELECT count(*) FROM p) < {most}", *conditions]
    return (
        f"WITH p AS MATERIALIZED (SELECT {columns} FROM {table.sql} AS t WHERE {' AND '.join(first)}"
        f" ORDER BY {order_by(table, order, with_value=column)} LIMIT {most}),"
        f" q AS MATERIALIZED (SELECT {columns} FROM {table.sql} AS t WHERE {' AND '.join(others)}"
        f" ORDER BY {order_by(table, order[1:])} LIMIT {most}),"
        " r AS (SELECT * FROM p UNION ALL SELECT * FROM q)"
    )


def _where_of(table: NativeTable, request: PageRequest, params: Parameters) -> str:
    """Return the condition of a page: the predicate, and the position after which it begins."""
    conditions = [] if request.where == TRUE else [NativeFilter(table, params).condition(request.where)]
    position = None if request.after is None else request.after.position
    if position is not None:
        if request.order is None:
            conditions.append(after_key(table, position[-1], params))
        elif request.order:
            conditions.append(after_position(table, request.order, position, params))
        else:
            conditions.append(after_id(table, position[-1], params))
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _start_of(request: PageRequest, column: TableColumn | None, params: Parameters) -> list[str]:
    """Return the condition at which the index of the first sort key begins; none if that is its end."""
    position = None if request.after is None else request.after.position
    if column is None or not request.order or position is None or position[0][0] == NONE:
        return []
    sign, bound = "<=" if request.order[0].descending else ">=", bind_value(column, position[0][1])
    return [f"{source(column)} {sign} {bind(params, bound, type_of(column))}"]


def _order_of(table: NativeTable, request: PageRequest, *, with_value: TableColumn | None = None) -> str:
    if request.order is not None:
        return f" ORDER BY {order_by(table, request.order, with_value=with_value)}"
    if request.consistent:  # in physical order
        return ""
    # Any order will do: that of the key's index.
    return f" ORDER BY {', '.join(source(column) for column in table.table.key_columns)}"


def select_by_key(
    table: NativeTable, reader: RowReader, keys: Sequence[Sequence[JSON]], *, for_update: bool
) -> Statement:
    """Return the select of the rows with some keys."""
    params = Parameters()
    where = NativeFilter(table, params).by_key(keys)
    # All lock in one order, so that two batches never wait for each other in a circle.
    order = f" ORDER BY {order_by(table, ())}" if for_update and len(keys) > 1 else ""
    lock = " FOR UPDATE OF t" if for_update else ""
    return Statement(f"SELECT {reader.select} FROM {table.sql} AS t WHERE {where}{order}{lock}", params.args)


def select_count(table: NativeTable, where: Predicate) -> Statement:
    """Return the select of how many rows match."""
    params = Parameters()
    return Statement(f"SELECT count(*) FROM {table.sql} AS t{_where(table, where, params)}", params.args)


def delete_where(table: NativeTable, where: Predicate) -> Statement:
    """Return the deletion of the matching rows."""
    params = Parameters()
    return Statement(f"DELETE FROM {table.sql} AS t{_where(table, where, params)}", params.args)


def _where(table: NativeTable, where: Predicate, params: Parameters) -> str:
    if where == TRUE:
        return ""
    return f" WHERE {NativeFilter(table, params).condition(where)} AND {table.same_types}"
