"""Compiles aggregates to partial states that the server computes, and reads these (meaning §7)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, assert_never

from isthmus._core.executor import AggregateRequest
from isthmus._path import Path
from isthmus._query.aggregate import Groups
from isthmus._query.ast import TRUE, Function, Measure
from isthmus._query.order import BOOL, NONE, NUMBER, OBJECT, TEXT, SortValue
from isthmus._values import INT_MAX, INT_MIN, decode_numeric
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.sql.fields import attribute, field_of
from isthmus.backends.postgres.sql.filter import Filter
from isthmus.backends.postgres.sql.order import sort_value, type_rank
from isthmus.backends.postgres.sql.statement import Parameters, Statement
from isthmus.backends.postgres.sql.table import Table

_SCALARS = "('boolean', 'number', 'string')"


async def aggregate(connection: Connection, table: Table, request: AggregateRequest) -> Groups:
    """Return the partial states of each group."""
    statement = compile_aggregate(table, request)
    groups = Groups(request.measures)
    width = len(request.by)
    for row in await connection.fetch(statement.text, *statement.args):
        columns = iter(row[width:])
        states = [_state(measure.function, columns) for measure in request.measures]
        groups.add(tuple(None if key is None else _value(key) for key in row[:width]), states)
    return groups


def compile_aggregate(table: Table, request: AggregateRequest) -> Statement:
    """Return the select of each group's keys and states."""
    params = Parameters(table.json_array)
    joins: list[str] = []
    keys: list[str] = []
    for place, path in enumerate(request.by):
        joins.append(f"CROSS JOIN LATERAL ({_group_values(path)}) AS g{place}(k)")
        keys.append(f"g{place}.k")
    columns = [f"{key}::text" for key in keys]
    for place, measure in enumerate(request.measures):
        join, states = _measure_columns(measure, f"m{place}")
        if join:
            joins.append(f"CROSS JOIN LATERAL ({join} OFFSET 0) AS m{place}")
        columns += states
    where = (
        "" if request.where == TRUE else f" WHERE {Filter(params, table.indexed).condition(request.where)}"
    )
    grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
    return Statement(
        f"SELECT {', '.join(columns)} FROM {table.sql} AS t {' '.join(joins)}{where}{grouped}",
        params.args,
    )


def _group_values(path: Path) -> str:
    """Return the select of a row's distinct scalars at a path, or of NULL if it has none."""
    text = attribute(path)
    if text is not None:
        return f"SELECT to_jsonb({text})"
    field = field_of(path)
    one = f"SELECT CASE WHEN {field.kind} IN {_SCALARS} THEN {field.value} END"
    if not field.keys:
        return one
    scalars = f"FROM {field.values()} AS e WHERE jsonb_typeof(e.v) IN {_SCALARS}"
    return (
        f"{one} WHERE {field.has_list} IS NOT TRUE"
        f" UNION ALL SELECT d.v FROM (SELECT DISTINCT e.v {scalars}) AS d WHERE {field.has_list}"
        f" UNION ALL SELECT NULL::jsonb WHERE {field.has_list} AND NOT EXISTS (SELECT 1 {scalars})"
    )


def _measure_columns(measure: Measure, name: str) -> tuple[str, list[str]]:
    """Return the select of a measure's state in one row, and the columns that combine the rows' states."""
    path = measure.path
    if path is None:
        return "", ["count(*)"]
    match measure.function:
        case Function.COUNT:
            return f"SELECT {_per_row(path, 'count(*)', '1', '0')} AS n", [f"sum({name}.n)::int8"]
        case Function.SUM | Function.AVG:
            return _numbers(path), [
                f"sum({name}.total)::text",
                f"sum({name}.n)::int8",
                f"bool_or({name}.fractional)",
            ]
        case Function.MIN | Function.MAX:
            largest = measure.function is Function.MAX
            return f"SELECT {sort_value(path, largest=largest)} AS v", _extremes(f"{name}.v", largest=largest)
        case _:
            assert_never(measure.function)


def _per_row(path: Path, many: str, one: str, none: str) -> str:
    """Return an expression over the values of a row: an aggregate of many, or constants for one and none."""
    if attribute(path) is not None:
        return one
    field = field_of(path)
    single = f"CASE WHEN {field.kind} <> 'null' THEN {one} ELSE {none} END"
    if not field.keys:
        return single
    return f"CASE WHEN {field.has_list} THEN (SELECT {many} FROM {field.values()} AS e) ELSE {single} END"


def _numbers(path: Path) -> str:
    """Return the select of a row's sum of numbers, how many there are, and whether one is a float."""
    if attribute(path) is not None:
        return "SELECT NULL::numeric AS total, 0 AS n, FALSE AS fractional"
    field = field_of(path)
    # The cast is inside a CASE, so it is evaluated for numbers only.
    number = f"CASE WHEN {field.kind} = 'number' THEN ({field.value})::numeric END"
    one = f"SELECT {number} AS x"
    if field.keys:
        one += (
            f" WHERE {field.has_list} IS NOT TRUE UNION ALL"
            " SELECT CASE WHEN jsonb_typeof(e.v) = 'number' THEN e.v::numeric END"
            f" FROM {field.values()} AS e WHERE {field.has_list}"
        )
    fractional = f"scale(n.x) > 0 OR n.x NOT BETWEEN {INT_MIN} AND {INT_MAX}"
    return f"SELECT sum(n.x) AS total, count(n.x) AS n, bool_or({fractional}) AS fractional FROM ({one}) AS n"


def _extremes(value: str, *, largest: bool) -> list[str]:
    """Return the columns with the extreme of each type, and the type whose extreme is the result."""
    end = "max" if largest else "min"
    truth = "bool_or" if largest else "bool_and"
    kind = type_rank(value)
    number = f"CASE WHEN jsonb_typeof({value}) = 'number' THEN ({value})::numeric END"
    text = f"(CASE WHEN jsonb_typeof({value}) = 'string' THEN {value} #>> '{{}}' END COLLATE \"C\")"
    return [
        f"{truth}({value} = 'true'::jsonb) FILTER (WHERE {kind} = {BOOL})",
        f"{end}({number})::text",
        f"{end}({text})",
        f"bool_or({kind} = {OBJECT})",
        f"{end}({kind})",
    ]


def _state(function: Function, columns: Any) -> Any:
    """Return a measure's partial state from its columns."""
    match function:
        case Function.COUNT:
            return next(columns) or 0
        case Function.SUM | Function.AVG:
            total, count, fractional = next(columns), next(columns), next(columns)
            if not count:
                return (0, 0)
            # The server adds decimals exactly, however large; the core rounds once.
            return (Fraction(total) if fractional else int(total), count)
        case Function.MIN | Function.MAX:
            truth, number, text, _, kind = (next(columns) for _ in range(5))
            return _extreme(kind, truth, number, text)
        case _:
            assert_never(function)


def _extreme(kind: int | None, truth: bool | None, number: str | None, text: str | None) -> SortValue:
    match kind:
        case 0:
            return (BOOL, truth)
        case 1:
            return (NUMBER, _value(number))
        case 2:
            return (TEXT, text)
        case 3:
            return (OBJECT, None)
        case _:
            return (NONE, None)


def _value(text: Any) -> Any:
    return decode_numeric(text)
