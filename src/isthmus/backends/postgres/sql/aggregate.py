"""Compiles aggregates to partial states that the server computes, and reads these (meaning §7)."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any, assert_never

from isthmus._core.executor import AggregateRequest
from isthmus._path import Path
from isthmus._query.aggregate import Groups
from isthmus._query.ast import TRUE, Function, Measure
from isthmus._query.bucket import Bucket, GroupKey, buckets_of
from isthmus._query.order import BOOL, NONE, NUMBER, OBJECT, TEXT, SortValue
from isthmus._values import INT_MAX, INT_MIN, decode_numeric
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.sql.fields import attribute, field_of
from isthmus.backends.postgres.sql.filter import Filter
from isthmus.backends.postgres.sql.order import sort_value, type_rank
from isthmus.backends.postgres.sql.statement import Parameters, Statement
from isthmus.backends.postgres.sql.table import Table

_SCALARS = "('boolean', 'number', 'string')"
_TEXT_OF_E = "(e.v #>> '{}')"
# Numbers below are stored as they are meant; larger ones may be integers or doubles next to one.
_SMALL = 10**15


async def aggregate(connection: Connection, table: Table, request: AggregateRequest) -> Groups:
    """Return the partial states of each group."""
    statement = compile_aggregate(table, request)
    groups = Groups(request.measures)
    width = len(request.by)
    for row in await connection.fetch(statement.text, *statement.args):
        columns = iter(row[width:])
        states = [_state(measure.function, columns) for measure in request.measures]
        parts = (_key_parts(key, text) for key, text in zip(request.by, row[:width], strict=True))
        for key in itertools.product(*parts):
            groups.add(key, states)
    return groups


def _key_parts(key: GroupKey, text: str | None) -> list[Any]:
    """Return the groups of a row by one key: one value, or all its buckets."""
    value = None if text is None else _value(text)
    if not isinstance(key, Bucket):
        return [value]
    return buckets_of(value if isinstance(value, list) else [value], key)


def compile_aggregate(table: Table, request: AggregateRequest) -> Statement:
    """Return the select of each group's keys and states."""
    params = Parameters(table.json_array)
    joins: list[str] = []
    keys: list[str] = []
    for place, key in enumerate(request.by):
        values = _bucket_values(key) if isinstance(key, Bucket) else _group_values(key)
        joins.append(f"CROSS JOIN LATERAL ({values}) AS g{place}(k)")
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


def _bucket_values(bucket: Bucket) -> str:
    """Return the select of what decides a row's buckets: its value, or a list of all that it has.

    The core makes buckets of them, since it knows the time zones; a row with two values of one bucket
    counts once in it.
    """
    text = attribute(bucket.path)
    if text is not None:
        return f"SELECT {_round_value(bucket, f'to_jsonb({text})', text)}"
    field = field_of(bucket.path)
    kind = "string" if bucket.width is None else "number"
    one = f"CASE WHEN {field.kind} = '{kind}' THEN {_round_value(bucket, field.value, field.text)} END"
    if not field.keys:
        return f"SELECT {one}"
    each = f"CASE WHEN jsonb_typeof(e.v) = '{kind}' THEN {_round_value(bucket, 'e.v', _TEXT_OF_E)} END"
    many = f"(SELECT jsonb_agg(DISTINCT {each}) FROM {field.values()} AS e)"
    return f"SELECT CASE WHEN {field.has_list} THEN {many} ELSE {one} END"


def _round_value(bucket: Bucket, value: str, text: str) -> str:
    """Return a value of the same bucket that fewer rows differ in, where that is plain to see."""
    if bucket.width is None:
        # Since 1973 the offset of every zone is one of whole minutes.
        canonical = rf"length({text}) = 27 AND right({text}, 11) ~ '^:[0-5][0-9]\.[0-9]{{6}}Z$'"
        return (
            f"CASE WHEN {canonical} AND {text} >= '1973' COLLATE \"C\""
            f" THEN to_jsonb(left({text}, 16) || ':00Z') ELSE {value} END"
        )
    number, width = f"({value})::numeric", f"{bucket.width}::numeric"
    rest = f"mod({number}, {width})"
    lower = f"trunc({number} - {rest} - CASE WHEN {rest} < 0 THEN {width} ELSE 0 END)"
    return f"CASE WHEN abs({number}) < {_SMALL} THEN to_jsonb({lower}) ELSE {value} END"


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
        case Function.COUNT_DISTINCT | Function.PERCENTILE:
            raise AssertionError(f"{measure.function.value} is not pushed down")
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
        case Function.COUNT_DISTINCT | Function.PERCENTILE:
            raise AssertionError(f"{function.value} is not pushed down")
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
