"""Compiles searches, counts and deletions to statements."""

from __future__ import annotations

from isthmus._core.executor import PageRequest
from isthmus._query.ast import TRUE, Predicate
from isthmus.backends.postgres.sql.fields import COLUMNS
from isthmus.backends.postgres.sql.filter import Filter
from isthmus.backends.postgres.sql.index_union import has_indexes, index_union
from isthmus.backends.postgres.sql.order import after_position, compile_order
from isthmus.backends.postgres.sql.statement import Parameters, Statement
from isthmus.backends.postgres.sql.table import Table

# A larger limit is as good as none, and its sum with an offset might not fit 64 bits.
_UNLIMITED = 2**40


def select_page(table: Table, request: PageRequest, *, ahead: int = 1) -> Statement:
    """Return the select of a page and `ahead` more rows, which show whether there is a next page."""
    params = Parameters(table.json_array)
    size = request.size_up_to(_UNLIMITED) + ahead
    limited = size < _UNLIMITED
    offset = f" OFFSET {params.bigint(request.offset)}" if request.offset else ""
    order, position = request.order, None if request.after is None else request.after.position
    if order and limited and not request.for_update and has_indexes(order, table.indexed):
        text = index_union(
            table, request.where, order[0], position, min(size + request.offset, 2**62), params
        )
        return Statement(f"{text} LIMIT {params.bigint(size)}{offset}", params.args)
    where = Filter(params, table.indexed).condition(request.where)
    compiled = compile_order(order or ())
    if position is not None:
        values = [f"s{index}.v" for index in range(len(order or ()))]
        where = f"{where} AND {after_position(order or (), position, values, params)}"
    limit = f" LIMIT {params.bigint(size)}" if limited else ""
    lock = " FOR UPDATE OF t" if request.for_update else ""
    # A consistent stream without an order reads the table in physical order.
    ordered = "" if order is None and request.consistent else f" ORDER BY {compiled.order_by}"
    joins = f" {compiled.joins}" if compiled.joins else ""
    return Statement(
        f"SELECT {COLUMNS} FROM {table.sql} AS t{joins} WHERE {where}{ordered}{limit}{offset}{lock}",
        params.args,
    )


def select_count(table: Table, where: Predicate) -> Statement:
    """Return the select of how many rows match."""
    params = Parameters(table.json_array)
    return Statement(f"SELECT count(*) FROM {table.sql} AS t{_where(table, where, params)}", params.args)


def delete_where(table: Table, where: Predicate) -> Statement:
    """Return the deletion of the matching rows."""
    params = Parameters(table.json_array)
    return Statement(f"DELETE FROM {table.sql} AS t{_where(table, where, params)}", params.args)


def _where(table: Table, where: Predicate, params: Parameters) -> str:
    return "" if where == TRUE else f" WHERE {Filter(params, table.indexed).condition(where)}"
