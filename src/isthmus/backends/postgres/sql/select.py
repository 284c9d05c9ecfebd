"""Compiles searches, counts and deletions to statements."""

from __future__ import annotations

from isthmus._core.executor import PageRequest
from isthmus._path import Root
from isthmus._query.ast import TRUE, Predicate, SortKey
from isthmus._query.order import Position
from isthmus.backends.postgres.sql.extraction import Extraction
from isthmus.backends.postgres.sql.fields import COLUMNS
from isthmus.backends.postgres.sql.filter import ALL, Filter
from isthmus.backends.postgres.sql.index_union import has_indexes, index_union
from isthmus.backends.postgres.sql.order import after_position, compile_order, extracted_sort_value, order_by
from isthmus.backends.postgres.sql.statement import Parameters, Statement
from isthmus.backends.postgres.sql.table import Table

# A larger limit is as good as none, and its sum with an offset might not fit 64 bits.
_UNLIMITED = 2**40
# Above this number of rows it costs less to sort the records than to read them by their ids.
_MAX_SORTED_IDS = 5_000


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
    if (
        order
        and order[0].path.root is not Root.ID
        and limited
        and not request.for_update
        and size + request.offset <= _MAX_SORTED_IDS
    ):
        text = _select_sorted(table, where, order, position, f"LIMIT {params.bigint(size)}{offset}", params)
        return Statement(text, params.args)
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


def _select_sorted(
    table: Table,
    where: str,
    order: tuple[SortKey, ...],
    position: Position | None,
    limit: str,
    params: Parameters,
) -> str:
    """Return the select of a page that sorts ids, then reads the records of those that are left."""
    extraction = Extraction()
    extraction.carry("id")
    # The keys after the id do not matter: ids are unique.
    values = [
        f"{extracted_sort_value(key, extraction)} AS v{index}"
        for index, key in enumerate(order)
        if key.path.root is not Root.ID
    ]
    names = [f"v{index}" for index in range(len(order))]
    source = f"(SELECT e.id{''.join(f', {value}' for value in values)}"
    source += f" FROM {extraction.sql(table.sql, '' if where == ALL else f' WHERE {where}')} AS e OFFSET 0)"
    after = ""
    if position is not None:
        after = f" WHERE {after_position(order, position, [f't.{name}' for name in names], params)}"
    by = [order_by(order, [f"{row}.{name}" for name in names], f"{row}.id") for row in ("t", "q")]
    # OFFSET 0 keeps the planner from joining by a scan of the table.
    return (
        f"SELECT {COLUMNS} FROM (SELECT * FROM {source} AS t{after} ORDER BY {by[0]} {limit}) AS q"
        f" CROSS JOIN LATERAL (SELECT * FROM {table.sql} AS t WHERE t.id = q.id OFFSET 0) AS t"
        f" ORDER BY {by[1]}"
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
