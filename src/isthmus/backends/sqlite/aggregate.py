"""Aggregates: SQL over the records without lists at the paths, the evaluator over the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, assert_never

from isthmus._core.executor import AggregateRequest
from isthmus._path import Path
from isthmus._query.aggregate import Groups, State, paths_read
from isthmus._query.ast import Function, Measure
from isthmus._query.bucket import Bucket, GroupKey, path_of
from isthmus._query.order import BOOL, NONE, NUMBER, OBJECT, TEXT
from isthmus._record import Record
from isthmus.backends.sqlite.column_aggregate import compile_on_columns
from isthmus.backends.sqlite.column_filter import IS_ODD, all_columns, condition
from isthmus.backends.sqlite.fields import TYPE_RANKS, AttributeField, Field, JSONField, OpaqueField, field_of
from isthmus.backends.sqlite.filter import ROW, FilterCompiler
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import Binder, Statement

_BATCH = 1_000
_SCALARS = ("integer", "real", "text", "true", "false")
_OBJECT = "object"


def aggregate(session: SQLiteSession, table: Table, request: AggregateRequest) -> Groups:
    """Return the groups' states; run inside a snapshot, as it may take several queries."""
    paths = paths_read(request.by, request.measures)
    fields = [field_of(path) for path in paths]
    groups = Groups(request.measures)
    if all_columns(table, paths):
        for row in session.rows(compile_on_columns(table, request)):
            _add_row(groups, request, row)
        if session.rows(Statement(f"SELECT 1 FROM {table.source} WHERE {IS_ODD} LIMIT 1")):
            _add_by_evaluator(session, table, request, groups, (), only=IS_ODD)
        return groups
    if any(isinstance(field, OpaqueField) for field in fields):
        _add_by_evaluator(session, table, request, groups, ())
        return groups
    has_lists = False
    for on_list, *row in session.rows(_compile(table, request)):
        if on_list:
            has_lists = True
            continue
        _add_row(groups, request, row)
    if has_lists:
        _add_by_evaluator(session, table, request, groups, fields)
    return groups


def _add_row(groups: Groups, request: AggregateRequest, row: Sequence[Any]) -> None:
    key = tuple(key_part(by, *row[2 * index : 2 * index + 2]) for index, by in enumerate(request.by))
    groups.add(key, read_states(request.measures, tuple(row[2 * len(request.by) :])))


def _add_by_evaluator(
    session: SQLiteSession,
    table: Table,
    request: AggregateRequest,
    groups: Groups,
    fields: Sequence[Field],
    *,
    only: str | None = None,
) -> None:
    """Add the records with a list at one of the fields, or all if there are no fields, one by one.

    `only` is a further condition on them.

    They come in batches, so that memory stays bounded.
    """
    last = ""
    while True:
        binder = Binder()
        where = FilterCompiler(binder, frozenset()).sql(request.where)
        has_list = _list_condition(fields, binder)
        for more in (has_list, only):
            where += "" if more is None else f" AND {more}"
        rows = session.rows(
            binder.statement(
                f"SELECT {ROW} FROM {table.source} WHERE {where} AND id > {binder.value(last)}"
                f" ORDER BY id LIMIT {_BATCH}"
            )
        )
        for id, data, metadata, version, created, updated in rows:
            record = Record.stored(id, data, metadata, str(version), created, updated)
            groups.add_record(record, request.by)
        if len(rows) < _BATCH:
            return
        last = rows[-1][0]


def _list_condition(fields: Sequence[Field], binder: Binder) -> str | None:
    """Return the condition that there is a list at one of the paths or before it; None if none can be."""
    kinds = dict.fromkeys(
        field.kind(binder, depth)
        for field in fields
        if isinstance(field, JSONField)
        for depth in range(1, len(field.keys) + 1)
    )
    return "(" + " OR ".join(f"coalesce({kind}, '') = 'array'" for kind in kinds) + ")" if kinds else None


def _compile(table: Table, request: AggregateRequest) -> Statement:
    """Return the select of whether rows have a list at one of the paths, then their keys and states.

    The rows with lists are one group apart from the others, whatever their values are.
    """
    binder = Binder()
    extraction = JSONExtraction(binder)
    keys = [part for by in request.by for part in extraction.key(path_of(by))]
    states = [state for measure in request.measures for state in extraction.states(measure)]
    where = condition(table, request.where, binder)
    columns = ", ".join(["on_list", *keys, *states])
    # Without `by`, no matching record means no group, not one empty group.
    grouped = ", ".join(["on_list", *keys])
    return binder.statement(f"SELECT {columns} FROM {extraction.sql(table.source, where)} GROUP BY {grouped}")


class JSONExtraction:
    """The columns that keys and measures take, each computed once for a row.

    SQLite copies the expressions of a sub-select into each of their uses unless it has a limit: then a
    sum calls JSON functions ten times for a row (docs/decisions/0019).
    """

    def __init__(self, binder: Binder) -> None:
        self._binder = binder
        self._values: dict[str, str] = {}
        """The innermost columns by expression: types, values, and what lists are looked for in."""
        self._inputs: dict[str, str] = {}
        self._lists: dict[str, None] = {}

    def key(self, path: Path) -> list[str]:
        """Return the columns of a key: the rank of its type, NULL for no key, and the scalar."""
        kind, value = self.extract(path)
        ranks = " ".join(f"WHEN '{name}' THEN {TYPE_RANKS[name]}" for name in _SCALARS)
        # Objects are no keys: they count as no value.
        return [
            self._input(f"CASE WHEN NOT on_list THEN CASE {kind} {ranks} END END"),
            self._input(f"CASE WHEN NOT on_list AND {kind} IN {_names(*_SCALARS)} THEN {value} END"),
        ]

    def states(self, measure: Measure) -> list[str]:
        """Return the aggregate functions of a measure's state."""
        if measure.path is None:
            return ["count(*)"]
        kind, value = self.extract(measure.path)

        def of(*kinds: str) -> str:
            return self._input(f"CASE WHEN {kind} IN {_names(*kinds)} THEN {value} END")

        match measure.function:
            case Function.COUNT:
                return [
                    f"count({self._input(f'CASE WHEN {kind} IN {_names(*_SCALARS, _OBJECT)} THEN 1 END')})"
                ]
            case Function.SUM | Function.AVG:
                number = of("integer", "real")
                is_integer = f"FILTER (WHERE typeof({number}) = 'integer')"
                # In two halves: sum() of integers overflows beyond 64 bits.
                return [
                    f"count({number})",
                    f"sum({number} >> 32) {is_integer}",
                    f"sum({number} & 4294967295) {is_integer}",
                    f"isthmus_sum({number}) FILTER (WHERE typeof({number}) = 'real')",
                ]
            case Function.MIN | Function.MAX:
                least = "min" if measure.function is Function.MIN else "max"
                scalars = [of("true", "false"), of("integer", "real"), of("text")]
                return [f"{least}({scalar})" for scalar in scalars] + [f"count({of(_OBJECT)})"]
            case Function.COUNT_DISTINCT | Function.PERCENTILE:
                raise AssertionError(f"{measure.function.value} is not pushed down")
            case _:
                assert_never(measure.function)

    def sql(self, source: str, where: str) -> str:
        """Return the sub-select of all columns over the matching rows."""
        on_list = " OR ".join(self._lists) or "0"
        values = ", ".join(f"{expression} AS {name}" for expression, name in self._values.items())
        inputs = "".join(f", {expression} AS {name}" for expression, name in self._inputs.items())
        inner = f"(SELECT {values or '1'} FROM {source} WHERE {where} LIMIT -1)"
        marked = f"(SELECT *, coalesce({on_list}, 0) AS on_list FROM {inner} LIMIT -1)"
        return f"(SELECT on_list{inputs} FROM {marked} LIMIT -1)"

    def _input(self, expression: str) -> str:
        return self._inputs.setdefault(expression, f"i{len(self._inputs)}")

    def column_of(self, expression: str) -> str:
        """Return the innermost column of an expression."""
        return self._values.setdefault(expression, f"v{len(self._values)}")

    def extract(self, path: Path) -> tuple[str, str]:
        """Return the type and the value at a path, where there is no list on it."""
        field = field_of(path)
        match field:
            case AttributeField(value):
                return "'text'", self.column_of(value)
            case JSONField():
                kind = self.column_of(field.kind(self._binder))
                self._lists[f"{kind} = 'array'"] = None
                if len(field.keys) > 1:
                    # Behind a list there is nothing, so only then it is looked for.
                    before = [field.kind(self._binder, depth) for depth in range(1, len(field.keys))]
                    found = " OR ".join(f"{step} = 'array'" for step in before)
                    behind = self.column_of(f"CASE WHEN {field.kind(self._binder)} IS NULL THEN {found} END")
                    self._lists[behind] = None
                return kind, self.column_of(field.value(self._binder))
            case _:
                return "NULL", "NULL"


def _names(*kinds: str) -> str:
    """Return types, as `json_type` names them, as a list in SQL."""
    return "(" + ", ".join(f"'{kind}'" for kind in kinds) + ")"


def read_states(measures: tuple[Measure, ...], row: tuple[Any, ...]) -> list[State]:
    """Return the measures' states from the values of their aggregate functions."""
    values = iter(row)
    return [_state(measure, values) for measure in measures]


def _state(measure: Measure, values: Iterator[Any]) -> State:
    if measure.path is None:
        return next(values)
    match measure.function:
        case Function.COUNT:
            return next(values)
        case Function.SUM | Function.AVG:
            found, high, low, floats = (next(values) for _ in range(4))
            integers = ((high or 0) << 32) + (low or 0)
            return (integers if floats is None else integers + Fraction(floats), found)
        case Function.MIN | Function.MAX:
            truth, number, text, objects = (next(values) for _ in range(4))
            extremes: list[tuple[int, Any]] = []
            if truth is not None:
                extremes.append((BOOL, bool(truth)))
            if number is not None:
                extremes.append((NUMBER, number))
            if text is not None:
                extremes.append((TEXT, text))
            if objects:
                extremes.append((OBJECT, None))
            if not extremes:
                return (NONE, None)
            return extremes[0 if measure.function is Function.MIN else -1]
        case Function.COUNT_DISTINCT | Function.PERCENTILE:
            raise AssertionError(f"{measure.function.value} is not pushed down")
        case _:
            assert_never(measure.function)


def key_part(key: GroupKey, type_rank: int | None, value: Any) -> Any:
    """Return a part of a group's key from its type rank and its scalar."""
    if type_rank is None:
        return None
    scalar = bool(value) if type_rank == BOOL else value
    return key.of(scalar) if isinstance(key, Bucket) else scalar
