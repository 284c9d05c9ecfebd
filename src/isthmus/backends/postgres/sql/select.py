"""Compiles searches, counts and deletions to statements."""

from __future__ import annotations

from isthmus._core.executor import PageRequest
from isthmus._path import Root
from isthmus._query.ast import TRUE, Predicate, SortKey
from isthmus._query.order import Position
from isthmus._value import replace
from isthmus.backends.postgres.sql.column_filter import both, by_row, condition, has_columns
from isthmus.backends.postgres.sql.column_order import keys_on_columns, sort_by_columns
from isthmus.backends.postgres.sql.columns import IS_ODD, NOT_ODD
from isthmus.backends.postgres.sql.extraction import Extraction
from isthmus.backends.postgres.sql.fields import COLUMNS, attribute, field_of
from isthmus.backends.postgres.sql.filter import ALL
from isthmus.backends.postgres.sql.index_union import has_indexes, index_union
from isthmus.backends.postgres.sql.order import (
    after_position,
    compile_order,
    order_by,
    scalar_sort_value,
    sort_value,
    sort_value_in,
)
from isthmus.backends.postgres.sql.statement import Parameters, Statement
from isthmus.backends.postgres.sql.table import Table
from isthmus.backends.postgres.sql.unpacking import row_for

# A larger limit is as good as none, and its sum with an offset might not fit 64 bits.
_UNLIMITED = 2**40
# Above this number of rows it costs less to sort the records than to read them by their ids.
_MAX_SORTED_IDS = 20_000
_STORED = ("id", "data", "metadata", "version", "created_at", "updated_at")


def select_page(table: Table, request: PageRequest, *, ahead: int = 1) -> Statement:
    """Return the select of a page and `ahead` more rows, which show whether there is a next page."""
    if request.after is not None:  # the types of the position's values decide the form
        return _compile_page(table, request, ahead)
    form = (
        "page", request.order, request.size, request.offset, request.for_update, request.consistent,
        request.texts, ahead,
    )  # fmt: skip
    return Statement(
        *table.plans.statement(
            form, request.where, lambda where: _compile_page(table, replace(request, where=where), ahead)
        )
    )


def _compile_page(table: Table, request: PageRequest, ahead: int) -> Statement:
    params = Parameters(table.json_array)
    size = request.size_up_to(_UNLIMITED) + ahead
    limited = size < _UNLIMITED
    offset = f" OFFSET {params.bigint(request.offset)}" if request.offset else ""
    order, position = request.order, None if request.after is None else request.after.position
    if limited and not request.for_update and (keys := keys_on_columns(table, order)):
        text = sort_by_columns(table, request, keys, min(size + request.offset, 2**62), params)
        return Statement(f"{text} LIMIT {params.bigint(size)}{offset}", params.args)
    if order and limited and not request.for_update and has_indexes(order, table.indexed):
        text = index_union(
            table, request.where, order[0], position, min(size + request.offset, 2**62), params
        )
        return Statement(f"{text} LIMIT {params.bigint(size)}{offset}", params.args)
    where = condition(table, request.where, params)
    limit = f" LIMIT {params.bigint(size)}" if limited else ""
    if order and order[0].path.root is not Root.ID and not request.for_update:
        sort = _Sort(table, where, order, position, params)
        few = limited and size + request.offset <= _MAX_SORTED_IDS
        page = limit + offset
        text = sort.ids_first(size + request.offset, page) if few else sort.sort_records(page)
        return Statement(text, params.args)
    compiled = compile_order(order or ())
    if position is not None:
        values = [f"s{index}.v" for index in range(len(order or ()))]
        where = f"{where} AND {after_position(order or (), position, values, params)}"
    lock = " FOR UPDATE OF t" if request.for_update else ""
    # A consistent stream without an order reads the table in physical order.
    ordered = "" if order is None and request.consistent else f" ORDER BY {compiled.order_by}"
    joins = f" {compiled.joins}" if compiled.joins else ""
    columns = "t.id, t.data" if request.texts else COLUMNS
    return Statement(
        f"SELECT {columns} FROM {table.sql} AS t{joins} WHERE {where}{ordered}{limit}{offset}{lock}",
        params.args,
    )


class _Sort:
    """The select of a page in an order that no index serves; each sort key is extracted once for a row."""

    def __init__(
        self,
        table: Table,
        where: str,
        order: tuple[SortKey, ...],
        position: Position | None,
        params: Parameters,
    ) -> None:
        self._table = table
        self._where = "" if where == ALL else f" WHERE {where}"
        self._order = order
        self._params = params
        # An id among the keys is compared as such, and the keys after it do not matter.
        self._keys = [(f"v{n}", key) for n, key in enumerate(order) if key.path.root is not Root.ID]
        self._paths = [key.path for _, key in self._keys]
        self._after = ""
        if position is not None:
            values = [f"t.v{n}" for n in range(len(order))]
            self._after = f" WHERE {after_position(order, position, values, params)}"

    def ids_first(self, size: int, limit: str) -> str:
        """Return the form for few rows: sorts ids, then reads the records of those that are left.

        Rows with lists are selected apart: their values take a sub-select, which would keep the other
        rows from being read by parallel workers.
        """
        most = self._params.bigint(size)
        branches = [
            f"(SELECT * FROM {rows} AS t{self._after} ORDER BY {self._by('t')} LIMIT {most})"
            for rows in self._branches()
        ]
        # OFFSET 0 keeps the planner from joining by a scan of the table.
        return (
            f"SELECT {COLUMNS} FROM (SELECT * FROM ({' UNION ALL '.join(branches)}) AS t"
            f" ORDER BY {self._by('t')}{limit}) AS q"
            f" CROSS JOIN LATERAL (SELECT * FROM {self._table.sql} AS t WHERE t.id = q.id OFFSET 0) AS t"
            f" ORDER BY {self._by('q')}"
        )

    def _branches(self) -> list[str]:
        """Return the sub-selects of ids and sort values: rows without lists, and rows with them."""
        extraction = Extraction(self._paths)
        extraction.carry("id")
        values = {name: scalar_sort_value(key, extraction) for name, key in self._keys}
        lists = [has_list for _, has_list in values.values() if has_list is not None]
        columns = "".join(f", {value} AS {name}" for name, (value, _) in values.items())
        only = f" WHERE ({' OR '.join(lists)}) IS NOT TRUE" if lists else ""
        scalars = (
            f"(SELECT e.id{columns} FROM {extraction.sql(self._table.sql, self._where)} AS e{only} LIMIT ALL)"
        )
        if not lists:
            return [scalars]
        row, join = row_for(self._paths)
        fields = [field_of(key.path, row) for _, key in self._keys if attribute(key.path) is None]
        has_list = " OR ".join(field.has_list for field in fields if field.keys)
        columns = "".join(
            f", {sort_value(key.path, largest=key.descending, row=row)} AS {name}" for name, key in self._keys
        )
        where = f"{self._where} {'AND' if self._where else 'WHERE'} ({has_list})"
        found = f"{self._table.sql} AS t{join}{where}"
        if not join:  # workers may look for the rows
            found = f"(SELECT * FROM {found} LIMIT ALL) AS t"
        return [scalars, f"(SELECT t.id{columns} FROM {found} LIMIT ALL)"]

    def sort_records(self, limit: str) -> str:
        """Return the form for many rows: sorts the records."""
        extraction = Extraction(self._paths)
        for column in _STORED:
            extraction.carry(column)
        values = "".join(f", {sort_value_in(key, extraction)} AS {name}" for name, key in self._keys)
        carried = ", ".join(f"e.{column}" for column in _STORED)
        inner = extraction.sql(self._table.sql, self._where)
        return (
            f"SELECT {COLUMNS} FROM (SELECT {carried}{values} FROM {inner} AS e LIMIT ALL) AS t{self._after}"
            f" ORDER BY {self._by('t')}{limit}"
        )

    def _by(self, row: str) -> str:
        return order_by(self._order, [f"{row}.v{n}" for n in range(len(self._order))], f"{row}.id")


def select_count(table: Table, where: Predicate) -> Statement:
    """Return the select of how many rows match."""
    return Statement(*table.plans.statement("count", where, lambda where: _compile_count(table, where)))


def _compile_count(table: Table, where: Predicate) -> Statement:
    params = Parameters(table.json_array)
    if has_columns(table, where):
        # Two counts: an index alone may answer the first.
        usual, odd = by_row(table, where, params)
        parts = [both(usual, NOT_ODD), both(IS_ODD, odd)]
        counts = [f"(SELECT count(*) FROM {table.sql} AS t WHERE {part})" for part in parts]
        return Statement(f"SELECT {' + '.join(counts)}", params.args)
    return Statement(f"SELECT count(*) FROM {table.sql} AS t{_where(table, where, params)}", params.args)


def delete_where(table: Table, where: Predicate) -> Statement:
    """Return the deletion of the matching rows."""
    return Statement(*table.plans.statement("delete", where, lambda where: _compile_deletion(table, where)))


def _compile_deletion(table: Table, where: Predicate) -> Statement:
    params = Parameters(table.json_array)
    return Statement(f"DELETE FROM {table.sql} AS t{_where(table, where, params)}", params.args)


def _where(table: Table, where: Predicate, params: Parameters) -> str:
    return "" if where == TRUE else f" WHERE {condition(table, where, params)}"
