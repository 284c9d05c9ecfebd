"""Compiles aggregates over columns to partial states that the server computes (meaning §7)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from isthmus._core.executor import AggregateRequest
from isthmus._core.offload import compile_statement, in_turns
from isthmus._path import Path, Root
from isthmus._query.aggregate import Groups, as_integer, holds_values, paths_read
from isthmus._query.ast import TRUE, Function, Measure
from isthmus._query.bucket import Bucket, GroupKey, path_of
from isthmus._query.order import BOOL, NONE, NUMBER, TEXT
from isthmus._values import INT_MAX, INT_MIN
from isthmus.backends._tables.column import Kind, TableColumn
from isthmus.backends._tables.leaves import canonical_kind
from isthmus.backends._tables.values import read_number
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.native.catalog import NativeTable
from isthmus.backends.postgres.native.columns import is_comparable, sort_value, source, text_of, valid
from isthmus.backends.postgres.native.filter import NativeFilter, missing_column
from isthmus.backends.postgres.native.texts import decimal_of
from isthmus.backends.postgres.sql.statement import Parameters, Statement

_TRUTH = {Function.MIN: "bool_and", Function.MAX: "bool_or"}


def aggregates(table: NativeTable, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
    """Return whether the server computes these exactly: scalars in columns, or nothing at all."""
    if holds_values(measures) or any(isinstance(key, Bucket) for key in by):
        return False
    return all(_computes(table, path) for path in paths_read(by, measures))


def _computes(table: NativeTable, path: Path) -> bool:
    if missing_column(table, path):
        return True
    if path.root is not Root.DATA or len(path.keys) != 1:
        return False
    return is_comparable(table.table.by_name[path.keys[0]])


async def aggregate(connection: Connection, table: NativeTable, request: AggregateRequest) -> Groups:
    """Return the partial states of each group."""
    statement = await compile_statement(request.where, lambda: compile_aggregate(table, request))
    groups = Groups(request.measures)
    width = len(request.by)
    async for rows in in_turns(await connection.fetch(statement.text, *statement.args)):
        for row in rows:
            columns = iter(row[width:])
            states = [_state(table, measure, columns) for measure in request.measures]
            key = tuple(
                _read(_column(table, path_of(part)), value)
                for part, value in zip(request.by, row[:width], strict=True)
            )
            groups.add(key, states)
    return groups


def compile_aggregate(table: NativeTable, request: AggregateRequest) -> Statement:
    """Return the select of each group's keys and states."""
    params = Parameters()
    where = f" WHERE {table.same_types}"
    if request.where != TRUE:
        where += f" AND {NativeFilter(table, params).condition(request.where)}"
    keys = [_key(_column(table, path_of(part))) for part in request.by]
    states = [state for measure in request.measures for state in _states(table, measure)]
    grouped = f" GROUP BY {', '.join(str(place + 1) for place in range(len(keys)))}" if keys else ""
    columns = ", ".join([*keys, *states]) or "1"
    return Statement(f"SELECT {columns} FROM {table.sql} AS t{where}{grouped}", params.args)


def _column(table: NativeTable, path: Path | None) -> TableColumn | None:
    if path is None or path.root is not Root.DATA or len(path.keys) != 1:
        return None
    return table.table.by_name.get(path.keys[0])


def _value(column: TableColumn) -> str:
    """Return a column's canonical value: a number, a bool, or text by code point; NULL if there is none."""
    if canonical_kind(column) == "text":
        return f'(({text_of(column)}) COLLATE "C")'
    return f"({sort_value(column)})"


def _key(column: TableColumn | None) -> str:
    if column is None:
        return "NULL::text"
    if column.kind is Kind.NUMERIC and column.numeric == "exact":
        return f"trim_scale({_value(column)})::text"
    if column.kind is Kind.FLOAT:
        return f"{_value(column)}::float8"
    return f"{_value(column)}::int8" if column.kind is Kind.INTEGER else _value(column)


def _read(column: TableColumn | None, value: Any) -> Any:
    """Return a key or an extreme as the canonical value that it is."""
    if value is None or column is None:
        return None
    return as_integer(read_number(value)) if canonical_kind(column) == "number" else value


def _states(table: NativeTable, measure: Measure) -> list[str]:
    if measure.path is None:
        return ["count(*)"]
    column = _column(table, measure.path)
    match measure.function:
        case Function.COUNT:
            return ["0::int8" if column is None else f"count({_value(column)})"]
        case Function.SUM | Function.AVG:
            if column is None or canonical_kind(column) != "number":
                return ["NULL::text", "0::int8", "FALSE"]
            return _number_states(column)
    if column is None:
        return ["NULL::text"]
    if column.kind is Kind.BOOL:
        return [f"{_TRUTH[measure.function]}({_value(column)})"]
    end = f"{measure.function.value}({_value(column)})"
    if column.kind is Kind.FLOAT:
        return [f"{end}::float8"]
    return [f"{end}::text" if canonical_kind(column) == "number" else end]


def _number_states(column: TableColumn) -> list[str]:
    """Return the exact sum of numbers, how many there are, and whether one is beyond 64 bits."""
    value = _value(column)
    number = f"{value}::numeric"
    if column.kind is Kind.FLOAT:
        # The server adds floats with an error that grows; their decimals it adds exactly.
        number = f"CASE WHEN {valid(column)} THEN {decimal_of(f'{source(column)}::float8')} END"
    beyond = "FALSE"
    if column.kind is not Kind.INTEGER:
        beyond = f"bool_or({value} NOT BETWEEN {INT_MIN} AND {INT_MAX})"
    return [f"sum({number})::text", f"count({value})", beyond]


def _state(table: NativeTable, measure: Measure, columns: Iterator[Any]) -> Any:
    if measure.path is None:
        return next(columns)
    column = _column(table, measure.path)
    match measure.function:
        case Function.COUNT:
            return next(columns)
        case Function.SUM | Function.AVG:
            total, count, beyond = next(columns), next(columns), next(columns)
            if not count:
                return (0, 0)
            exact = Fraction(total)
            return (int(exact) if exact.denominator == 1 and not beyond else exact, count)
    value = next(columns)
    if value is None or column is None:
        return (NONE, None)
    kind = canonical_kind(column)
    rank = {"bool": BOOL, "number": NUMBER}.get(kind or "", TEXT)
    return (rank, _read(column, value))
