"""Compiles aggregates to partial states that the server computes, and reads these (meaning §7)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, assert_never

from isthmus._core.executor import AggregateRequest
from isthmus._core.offload import compile_statement, in_turns
from isthmus._path import Path
from isthmus._query.aggregate import Groups, paths_read
from isthmus._query.ast import TRUE, Function, Measure
from isthmus._query.bucket import Bucket, GroupKey, buckets_of, path_of
from isthmus._query.order import BOOL, NONE, NUMBER, OBJECT, TEXT, SortValue
from isthmus._values import INT_MAX, INT_MIN, decode_numeric
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.sql.bucket import deciding_value
from isthmus.backends.postgres.sql.column_aggregate import aggregate_columns, is_on_columns
from isthmus.backends.postgres.sql.column_filter import condition
from isthmus.backends.postgres.sql.extraction import Extraction
from isthmus.backends.postgres.sql.fields import attribute, field_of
from isthmus.backends.postgres.sql.filter import ALL
from isthmus.backends.postgres.sql.order import sort_value, type_rank
from isthmus.backends.postgres.sql.statement import Parameters, Statement
from isthmus.backends.postgres.sql.table import Table
from isthmus.backends.postgres.sql.unpacking import row_for

_SCALARS = "('boolean', 'number', 'string')"
_TRUTH = {"max": "bool_or", "min": "bool_and"}
# What marks the rows with lists; no scalar's JSON text.
_ON_LIST = "["


async def aggregate(connection: Connection, table: Table, request: AggregateRequest) -> Groups:
    """Return the partial states of each group."""
    statement = await compile_statement(request.where, lambda: compile_aggregate(table, request))
    groups = Groups(request.measures)
    width = len(request.by)
    async for rows in in_turns(await connection.fetch(statement.text, *statement.args)):
        for row in rows:
            columns = iter(row[width:])
            states = [_state(measure.function, columns) for measure in request.measures]
            keys = [_keys(key, text) for key, text in zip(request.by, row[:width], strict=True)]
            for group in itertools.product(*keys):
                groups.add(group, states)
    return groups


def _keys(key: GroupKey, text: str | None) -> Sequence[Any]:
    """Return the keys of the groups that a row of the result belongs to: several for a list in buckets."""
    value = None if text is None else _value(text)
    if not isinstance(key, Bucket):
        return (value,)
    return buckets_of(value if isinstance(value, list) else (value,), key)


def compile_aggregate(table: Table, request: AggregateRequest) -> Statement:
    """Return the select of each group's keys and states.

    The first part extracts each path once for a row. The rows with a list on one of the paths are a
    group of their own there, which the second part replaces; it is executed only if there are any.
    Both are one statement, so they read one snapshot.
    """
    params = Parameters(table.json_array)
    if is_on_columns(table, request):
        return aggregate_columns(table, request, select_lists, params)
    matching = condition(table, request.where, params) if request.where != TRUE else ALL
    where = "" if matching == ALL else f" WHERE {matching}"
    scalars = _Scalars(request)
    text = scalars.select(table, where)
    if scalars.on_lists is None:
        return Statement(text, params.args)
    where = f"{where} {'AND' if where else 'WHERE'} (SELECT bool_or(m.on_list) FROM m) AND {scalars.on_lists}"
    return Statement(
        f"WITH m AS MATERIALIZED ({text}) SELECT {scalars.columns} FROM m WHERE m.on_list IS NOT TRUE"
        f" UNION ALL {select_lists(table, request, where)}",
        params.args,
    )


class _Scalars:
    """The select over rows without lists at the paths: each key as JSON text, then the states.

    Its last column, `on_list`, marks the group of the other rows.
    """

    def __init__(self, request: AggregateRequest) -> None:
        paths = paths_read(request.by, request.measures)
        self._extraction = Extraction(paths)
        self._inputs: dict[str, str] = {}
        self._fields = {path: self._extraction.extract(path) for path in paths}
        lists = {path: field.has_list for path, field in self._fields.items() if field.has_list is not None}
        row, _ = row_for(paths)
        self.on_lists = f"({' OR '.join(field_of(path, row).has_list for path in lists)})" if lists else None
        """The condition on a row that a list is on one of the paths; None if there can be none."""
        self._on_list = " OR ".join(lists.values()) or "FALSE"
        self._keys = [self._key(key, first=not place) for place, key in enumerate(request.by)]
        states = [state for measure in request.measures for state in self._states(measure)]
        self._named = [f"{state} AS s{place}" for place, state in enumerate(states)]
        # Two keys may be one input: of a group and of the values that are counted once.
        named = [
            *(f"k{place}" for place in range(len(self._keys))),
            *(f"s{place}" for place in range(len(states))),
        ]
        self.columns = ", ".join(named)
        """The names of the keys and the states."""

    def select(self, table: Table, where: str) -> str:
        """Return the select."""
        keys = list(self._keys)
        if not keys:
            keys.append(self._input(f"CASE WHEN {self._on_list} THEN '{_ON_LIST}' END"))
        inputs = ", ".join(f"{expression} AS {name}" for expression, name in self._inputs.items())
        named = [f"{key} AS k{place}" for place, key in enumerate(self._keys)]
        columns = [*named, *self._named, f"{keys[0]} = '{_ON_LIST}' AS on_list"]
        return (
            f"SELECT {', '.join(columns)} FROM (SELECT {inputs} FROM"
            f" {self._extraction.sql(table.sql, where)} AS e LIMIT ALL) AS r GROUP BY {', '.join(keys)}"
        )

    def _input(self, expression: str) -> str:
        """Return the column of an expression that aggregate functions or groups take."""
        return self._inputs.setdefault(expression, f"r{len(self._inputs)}")

    def _key(self, by: GroupKey, *, first: bool) -> str:
        """Return the column of a key. JSON text is grouped faster than jsonb; 1 and 1.0 are merged later."""
        field = self._fields[path_of(by)]
        mark = f"WHEN {self._on_list} THEN '{_ON_LIST}' " if first else ""
        key = f"({field.value})::text"
        if isinstance(by, Bucket):
            key = deciding_value(by, field.value, number=field.number, string=field.string)
        key = f"CASE {mark}WHEN {field.kind} IN {_SCALARS} THEN {key} END"
        return self._input(f'({key} COLLATE "C")')

    def _states(self, measure: Measure) -> list[str]:
        """Return the aggregate functions of a measure's state."""
        if measure.path is None:
            return ["count(*)"]
        field = self._fields[measure.path]
        match measure.function:
            case Function.COUNT:
                found = self._input(f"CASE WHEN {field.kind} <> 'null' THEN TRUE END")
                return [f"count({found})"]
            case Function.SUM | Function.AVG:
                return _number_states(self._input(field.number))
            case Function.MIN | Function.MAX:
                end = "max" if measure.function is Function.MAX else "min"
                truth = f"CASE WHEN {field.kind} = 'boolean' THEN {field.value} = 'true'::jsonb END"
                an_object = f"CASE WHEN {field.kind} = 'object' THEN TRUE END"
                return [
                    f"{_TRUTH[end]}({self._input(truth)})",
                    f"{end}({self._input(field.number)})::text",
                    f"{end}({self._input(field.string)})",
                    f"bool_or({self._input(an_object)})",
                ]
            case Function.COUNT_DISTINCT | Function.PERCENTILE:
                raise AssertionError(f"{measure.function.value} is not pushed down")
            case _:
                assert_never(measure.function)


def _number_states(number: str) -> list[str]:
    """Return the sum of numbers, how many there are, and whether one is beyond 64 bits."""
    beyond = f"bool_or({number} NOT BETWEEN {INT_MIN} AND {INT_MAX})"
    return [f"sum({number})::text", f"count({number})", beyond]


def select_lists(table: Table, request: AggregateRequest, where: str) -> str:
    """Return the select of the same columns in the general form, for rows with lists."""
    row, join = row_for(paths_read(request.by, request.measures))
    joins = [join] if join else []
    keys: list[str] = []
    for place, key in enumerate(request.by):
        values = _values_as_list(key.path, row) if isinstance(key, Bucket) else _group_values(key, row)
        joins.append(f"CROSS JOIN LATERAL ({values}) AS g{place}(k)")
        keys.append(f"g{place}.k")
    columns = [f"{key}::text" for key in keys]
    for place, measure in enumerate(request.measures):
        join, states = _measure_columns(measure, f"m{place}", row)
        if join:
            joins.append(f"CROSS JOIN LATERAL ({join} OFFSET 0) AS m{place}")
        columns += states
    # Without keys, no matching row means no group, not one empty group.
    grouped = f" GROUP BY {', '.join(keys)}" if keys else " HAVING count(*) > 0"
    return f"SELECT {', '.join(columns)} FROM {table.sql} AS t {' '.join(joins)}{where}{grouped}"


def _group_values(path: Path, row: str) -> str:
    """Return the select of a row's distinct scalars at a path, or of NULL if it has none."""
    text = attribute(path)
    if text is not None:
        return f"SELECT to_jsonb({text})"
    field = field_of(path, row)
    one = f"SELECT CASE WHEN {field.kind} IN {_SCALARS} THEN {field.value} END"
    if not field.keys:
        return one
    scalars = f"FROM {field.values()} AS e WHERE jsonb_typeof(e.v) IN {_SCALARS}"
    return (
        f"{one} WHERE {field.has_list} IS NOT TRUE"
        f" UNION ALL SELECT d.v FROM (SELECT DISTINCT e.v {scalars}) AS d WHERE {field.has_list}"
        f" UNION ALL SELECT NULL::jsonb WHERE {field.has_list} AND NOT EXISTS (SELECT 1 {scalars})"
    )


def _values_as_list(path: Path, row: str) -> str:
    """Return the select of a row's scalars at a path: one, or a list of them; NULL if it has none.

    Which of them are in one bucket the core finds out.
    """
    text = attribute(path)
    if text is not None:
        return f"SELECT to_jsonb({text})"
    field = field_of(path, row)
    one = f"CASE WHEN {field.kind} IN {_SCALARS} THEN {field.value} END"
    if not field.keys:
        return f"SELECT {one}"
    scalars = f"FROM {field.values()} AS e WHERE jsonb_typeof(e.v) IN {_SCALARS}"
    return f"SELECT CASE WHEN {field.has_list} THEN (SELECT jsonb_agg(DISTINCT e.v) {scalars}) ELSE {one} END"


def _measure_columns(measure: Measure, name: str, row: str) -> tuple[str, list[str]]:
    """Return the select of a measure's state in one row, and the columns that combine the rows' states."""
    path = measure.path
    if path is None:
        return "", ["count(*)"]
    match measure.function:
        case Function.COUNT:
            return f"SELECT {_per_row(path, row, 'count(*)', '1', '0')} AS n", [f"sum({name}.n)::int8"]
        case Function.SUM | Function.AVG:
            return _numbers(path, row), [
                f"sum({name}.total)::text",
                f"sum({name}.n)::int8",
                f"bool_or({name}.beyond)",
            ]
        case Function.MIN | Function.MAX:
            largest = measure.function is Function.MAX
            return f"SELECT {sort_value(path, largest=largest, row=row)} AS v", _extremes(
                f"{name}.v", largest=largest
            )
        case Function.COUNT_DISTINCT | Function.PERCENTILE:
            raise AssertionError(f"{measure.function.value} is not pushed down")
        case _:
            assert_never(measure.function)


def _per_row(path: Path, row: str, many: str, one: str, none: str) -> str:
    """Return an expression over the values of a row: an aggregate of many, or constants for one and none."""
    if attribute(path) is not None:
        return one
    field = field_of(path, row)
    single = f"CASE WHEN {field.kind} <> 'null' THEN {one} ELSE {none} END"
    if not field.keys:
        return single
    return f"CASE WHEN {field.has_list} THEN (SELECT {many} FROM {field.values()} AS e) ELSE {single} END"


def _numbers(path: Path, row: str) -> str:
    """Return the select of a row's sum of numbers, how many there are, and whether one is beyond 64 bits."""
    if attribute(path) is not None:
        return "SELECT NULL::numeric AS total, 0 AS n, FALSE AS beyond"
    field = field_of(path, row)
    # The cast is inside a CASE, so it is evaluated for numbers only.
    number = f"CASE WHEN {field.kind} = 'number' THEN ({field.value})::numeric END"
    one = f"SELECT {number} AS x"
    if field.keys:
        one += (
            f" WHERE {field.has_list} IS NOT TRUE UNION ALL"
            " SELECT CASE WHEN jsonb_typeof(e.v) = 'number' THEN e.v::numeric END"
            f" FROM {field.values()} AS e WHERE {field.has_list}"
        )
    beyond = f"n.x NOT BETWEEN {INT_MIN} AND {INT_MAX}"
    return f"SELECT sum(n.x) AS total, count(n.x) AS n, bool_or({beyond}) AS beyond FROM ({one}) AS n"


def _extremes(value: str, *, largest: bool) -> list[str]:
    """Return the columns with the extreme of each type."""
    end = "max" if largest else "min"
    number = f"CASE WHEN jsonb_typeof({value}) = 'number' THEN ({value})::numeric END"
    text = f"(CASE WHEN jsonb_typeof({value}) = 'string' THEN {value} #>> '{{}}' END COLLATE \"C\")"
    kind = type_rank(value)
    return [
        f"{_TRUTH[end]}({value} = 'true'::jsonb) FILTER (WHERE {kind} = {BOOL})",
        f"{end}({number})::text",
        f"{end}({text})",
        f"bool_or({kind} = {OBJECT})",
    ]


def _state(function: Function, columns: Any) -> Any:
    """Return a measure's partial state from its columns."""
    match function:
        case Function.COUNT:
            return next(columns) or 0
        case Function.SUM | Function.AVG:
            total, count, beyond = next(columns), next(columns), next(columns)
            if not count:
                return (0, 0)
            # The server adds decimals exactly, however large; the core rounds once. A sum has as many
            # decimals as its terms, zeros included, so without a point no term was a fraction.
            return (Fraction(total) if beyond or "." in total else int(total), count)
        case Function.MIN | Function.MAX:
            return _extreme(columns, largest=function is Function.MAX)
        case Function.COUNT_DISTINCT | Function.PERCENTILE:
            raise AssertionError(f"{function.value} is not pushed down")
        case _:
            assert_never(function)


def _extreme(columns: Any, *, largest: bool) -> SortValue:
    """Return the extreme in the cross-type order of the extremes of each type."""
    truth, number, text, an_object = (next(columns) for _ in range(4))
    found: list[SortValue] = []
    if truth is not None:
        found.append((BOOL, truth))
    if number is not None:
        found.append((NUMBER, _value(number)))
    if text is not None:
        found.append((TEXT, text))
    if an_object:
        found.append((OBJECT, None))
    if not found:
        return (NONE, None)
    return found[-1 if largest else 0]


def _value(text: Any) -> Any:
    return decode_numeric(text)
