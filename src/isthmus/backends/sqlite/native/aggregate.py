"""Aggregates over cells: one SELECT, since no cell holds a list or an object."""

from __future__ import annotations

from isthmus._core.executor import AggregateRequest, AggregateResult
from isthmus._path import Path, Root
from isthmus._query.aggregate import Groups
from isthmus._query.bucket import path_of
from isthmus.backends.sqlite.aggregate import JSONExtraction, key_part, read_states
from isthmus.backends.sqlite.native.columns import SQLiteColumn
from isthmus.backends.sqlite.native.filter import CellFilter, finite, is_text, version_sql
from isthmus.backends.sqlite.native.keys import id_sql
from isthmus.backends.sqlite.native.table import SQLiteTable
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import Binder, Statement


def aggregate(session: SQLiteSession, table: SQLiteTable, request: AggregateRequest) -> AggregateResult:
    """Return the states of the groups; one query."""
    groups = Groups(request.measures)
    width = 2 * len(request.by)
    for _, *row in session.rows(_compile(table, request)):
        key = tuple(key_part(by, *row[2 * index : 2 * index + 2]) for index, by in enumerate(request.by))
        groups.add(key, read_states(request.measures, tuple(row[width:])))
    return AggregateResult(groups)


def _compile(table: SQLiteTable, request: AggregateRequest) -> Statement:
    binder = Binder()
    extraction = _CellExtraction(table, binder)
    keys = [part for by in request.by for part in extraction.key(path_of(by))]
    states = [state for measure in request.measures for state in extraction.states(measure)]
    where = CellFilter(table, binder).sql(request.where)
    columns = ", ".join(["on_list", *keys, *states])
    grouped = ", ".join(["on_list", *keys])
    return binder.statement(f"SELECT {columns} FROM {extraction.sql(table.source, where)} GROUP BY {grouped}")


class _CellExtraction(JSONExtraction):
    """The columns that keys and measures take, from cells."""

    def __init__(self, table: SQLiteTable, binder: Binder) -> None:
        super().__init__(binder)
        self._table = table

    def extract(self, path: Path) -> tuple[str, str]:
        if path.root is Root.ID:
            return self._text(id_sql(self._table))
        if path.root is Root.VERSION and (version := version_sql(self._table)) is not None:
            return self._text(version)
        column = self._table.column(path.keys[0]) if path.root is Root.DATA and len(path.keys) == 1 else None
        if column is None:
            return "NULL", "NULL"
        return self.column_of(_kind_sql(column)), self.column_of(_value_sql(column))

    def _text(self, value: str) -> tuple[str, str]:
        return self.column_of(f"CASE WHEN {value} IS NOT NULL THEN 'text' END"), self.column_of(value)


def _kind_sql(column: SQLiteColumn) -> str:
    """Return the type of a cell as `json_type` names it; NULL where it has no canonical value."""
    cell = column.sql
    whole = (
        f"CASE {cell} WHEN 0 THEN 'false' WHEN 1 THEN 'true' ELSE 'integer' END"
        if column.boolean
        else "'integer'"
    )
    return (
        f"CASE typeof({cell}) WHEN 'integer' THEN {whole}"
        f" WHEN 'real' THEN CASE WHEN {finite('+' + cell)} THEN 'real' END"
        f" WHEN 'text' THEN CASE WHEN {is_text(column)} THEN 'text' END WHEN 'blob' THEN 'text' END"
    )


def _value_sql(column: SQLiteColumn) -> str:
    """Return the canonical value of a cell whose type `_kind_sql` gives; reals that are integers as such."""
    cell = column.sql
    whole = f"abs({cell}) >= {2.0**53!r} AND {cell} >= {-(2.0**63)!r} AND {cell} < {2.0**63!r}"
    return (
        f"CASE typeof({cell}) WHEN 'real' THEN CASE WHEN {whole} THEN CAST({cell} AS INTEGER) ELSE {cell} END"
        f" WHEN 'blob' THEN isthmus_base64({cell}) ELSE {cell} END"
    )
