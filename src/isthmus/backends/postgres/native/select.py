"""Compiles reads of a native table to statements."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus._core.executor import PageRequest
from isthmus._path import Root
from isthmus._query.ast import TRUE, Predicate
from isthmus._values import JSON
from isthmus.backends.postgres.native.catalog import NativeTable
from isthmus.backends.postgres.native.columns import source
from isthmus.backends.postgres.native.filter import NativeFilter
from isthmus.backends.postgres.native.order import after_id, after_key, after_position, order_by
from isthmus.backends.postgres.native.record import RowReader
from isthmus.backends.postgres.sql.statement import Parameters, Statement

# A larger limit is as good as none, and its sum with an offset might not fit 64 bits.
_UNLIMITED = 2**40


def reader_for(table: NativeTable, request: PageRequest) -> RowReader:
    """Return the reader of the columns that a page needs."""
    if request.select is None:
        return RowReader(table)
    paths = [path for path in request.select if path.root is Root.DATA]
    if any(not path.keys for path in paths):
        return RowReader(table)
    return RowReader(table, [path.keys[0] for path in paths])


def select_page(table: NativeTable, reader: RowReader, request: PageRequest, *, ahead: int = 1) -> Statement:
    """Return the select of a page and `ahead` more rows, which show whether there is a next page."""
    params = Parameters()
    conditions = [] if request.where == TRUE else [NativeFilter(table, params).condition(request.where)]
    position = None if request.after is None else request.after.position
    if position is not None:
        if request.order is None:
            conditions.append(after_key(table, position[-1], params))
        elif request.order:
            conditions.append(after_position(table, request.order, position, params))
        else:
            conditions.append(after_id(table, position[-1], params))
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    if request.order is not None:
        order = f" ORDER BY {order_by(table, request.order)}"
    elif request.consistent:  # in physical order
        order = ""
    else:  # any order will do: that of the key's index
        order = f" ORDER BY {', '.join(source(column) for column in table.table.key_columns)}"
    size = request.size_up_to(_UNLIMITED) + ahead
    limit = f" LIMIT {params.bigint(size)}" if size < _UNLIMITED else ""
    offset = f" OFFSET {params.bigint(request.offset)}" if request.offset else ""
    lock = " FOR UPDATE OF t" if request.for_update else ""
    return Statement(
        f"SELECT {reader.select} FROM {table.sql} AS t{where}{order}{limit}{offset}{lock}", params.args
    )


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
    return "" if where == TRUE else f" WHERE {NativeFilter(table, params).condition(where)}"
