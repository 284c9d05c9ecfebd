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
_MAX_SORTED_IDS = 20_000
_STORED = ("id", "data", "metadata", "version", "created_at", "updated_at")


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
    limit = f" LIMIT {params.bigint(size)}" if limited else ""
    if order and order[0].path.root is not Root.ID and not request.for_update:
        sort = _Sort(table, where, order, position, limit + offset)
        few = limited and size + request.offset <= _MAX_SORTED_IDS
        return Statement(sort.ids_first(params) if few else sort.whole(params), params.args)
    compiled = compile_order(order or ())
    if position is not None:
        values = [f"s{index}.v" for index in range(len(order or ()))]
        where = f"{where} AND {after_position(order or (), position, values, params)}"
    lock = " FOR UPDATE OF t" if request.for_update else ""
    # A consistent stream without an order reads the table in physical order.
    ordered = "" if order is None and request.consistent else f" ORDER BY {compiled.order_by}"
    joins = f" {compiled.joins}" if compiled.joins else ""
    return Statement(
        f"SELECT {COLUMNS} FROM {table.sql} AS t{joins} WHERE {where}{ordered}{limit}{offset}{lock}",
        params.args,
    )


class _Sort:
    """The select of a page in an order that no index serves; each sort key is extracted once for a row."""

    def __init__(
        self, table: Table, where: str, order: tuple[SortKey, ...], position: Position | None, limit: str
    ) -> None:
        self._table = table
        self._where = "" if where == ALL else f" WHERE {where}"
        self._order = order
        self._position = position
        self._limit = limit
        self._names = [f"v{index}" for index in range(len(order))]

    def ids_first(self, params: Parameters) -> str:
        """Return the form for few rows: sorts ids, then reads the records of those that are left."""
        # OFFSET 0 keeps the planner from joining by a scan of the table.
        return (
            f"SELECT {COLUMNS} FROM (SELECT * FROM {self._rows(('id',), params)}) AS q"
            f" CROSS JOIN LATERAL (SELECT * FROM {self._table.sql} AS t WHERE t.id = q.id OFFSET 0) AS t"
            f" ORDER BY {self._by('q')}"
        )

    def whole(self, params: Parameters) -> str:
        """Return the form for many rows: sorts the records."""
        return f"SELECT {COLUMNS} FROM {self._rows(_STORED, params)}"

    def _rows(self, columns: tuple[str, ...], params: Parameters) -> str:
        """Return the rest of a select from `t`: these columns and the sort keys, in order."""
        extraction = Extraction()
        for column in columns:
            extraction.carry(column)
        # An id among the keys is compared as such, and the keys after it do not matter.
        keys = zip(self._order, self._names, strict=True)
        values = [
            f", {extracted_sort_value(key, extraction)} AS {name}"
            for key, name in keys
            if key.path.root is not Root.ID
        ]
        carried = ", ".join(f"e.{column}" for column in columns)
        inner = extraction.sql(self._table.sql, self._where)
        source = f"(SELECT {carried}{''.join(values)} FROM {inner} AS e OFFSET 0)"
        after = ""
        if self._position is not None:
            names = [f"t.{name}" for name in self._names]
            after = f" WHERE {after_position(self._order, self._position, names, params)}"
        return f"{source} AS t{after} ORDER BY {self._by('t')}{self._limit}"

    def _by(self, row: str) -> str:
        return order_by(self._order, [f"{row}.{name}" for name in self._names], f"{row}.id")


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
