"""Aggregates over declared columns, of rows that are not odd."""

from __future__ import annotations

from typing import assert_never

from isthmus._core.executor import AggregateRequest
from isthmus._query.ast import Function, Measure
from isthmus._query.bucket import path_of
from isthmus.backends.sqlite.column_filter import NOT_ODD, RANKS, usual_rows
from isthmus.backends.sqlite.columns import StoredColumn
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.statement import Binder, Statement


def compile_on_columns(table: Table, request: AggregateRequest) -> Statement:
    """Return the select of each group's keys and states, as the general form has them."""
    binder = Binder()
    usual = usual_rows(table, request.where, binder)
    columns: list[str] = []
    keys = [table.columns[path_of(key)] for key in request.by]
    for stored in keys:
        rank = f"CASE WHEN {stored.sql} IS NOT NULL THEN {RANKS[stored.column.kind]} END"
        columns += [rank, stored.sql]
    for measure in request.measures:
        columns += ["count(*)"] if measure.path is None else _states(measure, table.columns[measure.path])
    grouped = f" GROUP BY {', '.join(stored.sql for stored in keys)}" if keys else ""
    return binder.statement(
        f"SELECT {', '.join(columns)} FROM {table.source} WHERE {NOT_ODD} AND {usual}{grouped}"
    )


def _states(measure: Measure, stored: StoredColumn) -> list[str]:
    x, kind = stored.sql, stored.column.kind
    match measure.function:
        case Function.COUNT:
            return [f"count({x})"]
        case Function.SUM | Function.AVG:
            if kind != "number":
                return ["count(NULL)", "NULL", "NULL", "NULL"]
            is_integer = f"FILTER (WHERE typeof({x}) = 'integer')"
            # In two halves: sum() of integers overflows beyond 64 bits.
            return [
                f"count({x})",
                f"sum({x} >> 32) {is_integer}",
                f"sum({x} & 4294967295) {is_integer}",
                f"isthmus_sum({x}) FILTER (WHERE typeof({x}) = 'real')",
            ]
        case Function.MIN | Function.MAX:
            least = "min" if measure.function is Function.MIN else "max"
            return [f"{least}({x})" if kind == one else "NULL" for one in ("bool", "number", "text")] + ["0"]
        case Function.COUNT_DISTINCT | Function.PERCENTILE:
            raise AssertionError(f"{measure.function.value} is not pushed down")
        case _:
            assert_never(measure.function)
