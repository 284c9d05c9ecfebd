"""Searches, counts and deletions by a predicate, as statements."""

from __future__ import annotations

from isthmus._core.executor import PageRequest
from isthmus._query.ast import TRUE, Predicate
from isthmus.backends.postgres.sql.fields import COLUMNS
from isthmus.backends.postgres.sql.filter import Filter
from isthmus.backends.postgres.sql.index_union import merged_arms, serves
from isthmus.backends.postgres.sql.order import after, ranking
from isthmus.backends.postgres.sql.statement import Bound, Statement
from isthmus.backends.postgres.sql.table import Table

# A larger limit is as good as none, and its sum with an offset might not fit 64 bits.
_UNLIMITED = 2**40


def page(table: Table, request: PageRequest, *, ahead: int = 1) -> Statement:
    """Return the select of a page; `ahead` more rows than asked for tell whether there is a next one."""
    bound = Bound()
    size = request.size_up_to(_UNLIMITED) + ahead
    limited = size < _UNLIMITED
    offset = f" OFFSET {bound.big(request.offset)}" if request.offset else ""
    order, at = request.order, None if request.after is None else request.after.position
    if order and limited and not request.for_update and serves(order, table.declared):
        text = merged_arms(table, request.where, order[0], at, min(size + request.offset, 2**62), bound)
        return Statement(f"{text} LIMIT {bound.big(size)}{offset}", bound.args)
    where = Filter(bound, table.declared).condition(request.where)
    ranks = ranking(order or ())
    if at is not None:
        values = [f"s{place}.v" for place in range(len(order or ()))]
        where = f"{where} AND {after(order or (), at, values, bound)}"
    limit = f" LIMIT {bound.big(size)}" if limited else ""
    lock = " FOR UPDATE OF t" if request.for_update else ""
    # A consistent stream without an order reads as the table lies.
    ordered = "" if order is None and request.consistent else f" ORDER BY {ranks.terms}"
    joins = f" {ranks.joins}" if ranks.joins else ""
    return Statement(
        f"SELECT {COLUMNS} FROM {table.sql} AS t{joins} WHERE {where}{ordered}{limit}{offset}{lock}",
        bound.args,
    )


def counting(table: Table, where: Predicate) -> Statement:
    """Return the select of how many rows match."""
    bound = Bound()
    return Statement(f"SELECT count(*) FROM {table.sql} AS t{_where(table, where, bound)}", bound.args)


def removal(table: Table, where: Predicate) -> Statement:
    """Return the deletion of the matching rows."""
    bound = Bound()
    return Statement(f"DELETE FROM {table.sql} AS t{_where(table, where, bound)}", bound.args)


def _where(table: Table, where: Predicate, bound: Bound) -> str:
    return "" if where == TRUE else f" WHERE {Filter(bound, table.declared).condition(where)}"
