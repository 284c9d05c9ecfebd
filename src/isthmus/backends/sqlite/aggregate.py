"""Aggregates: SQL over the records without lists at the paths, the evaluator over the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, assert_never

from isthmus._core.executor import AggregateRequest
from isthmus._path import Path
from isthmus._query.aggregate import Groups, State
from isthmus._query.ast import Function, Measure
from isthmus._query.bucket import Bucket, GroupKey, path_of
from isthmus._query.order import BOOL, NONE, NUMBER, OBJECT, TEXT
from isthmus._record import Record
from isthmus.backends.sqlite.fields import TYPE_RANKS, AttributeField, Field, JSONField, OpaqueField, field_of
from isthmus.backends.sqlite.filter import ROW, FilterCompiler
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import Binder, Statement

_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class _ScalarColumn:
    """A path in SQL where there is no list on it: the type rank, or NULL, and the scalar."""

    type_rank: str
    value: str


def aggregate(session: SQLiteSession, table: Table, request: AggregateRequest) -> Groups:
    """Return the groups' states; run inside a snapshot, as it may take several queries."""
    paths = [*(m.path for m in request.measures if m.path is not None), *map(path_of, request.by)]
    fields = [field_of(path) for path in dict.fromkeys(paths)]
    groups = Groups(request.measures)
    if any(isinstance(field, OpaqueField) for field in fields):
        _add_by_evaluator(session, table, request, groups, ())
        return groups
    for row in session.rows(_compile(table, request, fields)):
        key = tuple(_key_part(by, *row[2 * index : 2 * index + 2]) for index, by in enumerate(request.by))
        groups.add(key, _states(request.measures, row[2 * len(request.by) :]))
    if _list_condition(fields, Binder()) is not None:
        _add_by_evaluator(session, table, request, groups, fields)
    return groups


def _add_by_evaluator(
    session: SQLiteSession, table: Table, request: AggregateRequest, groups: Groups, fields: Sequence[Field]
) -> None:
    """Add the records with a list at one of the fields, or all if there are no fields, one by one.

    They come in batches, so that memory stays bounded.
    """
    last = ""
    while True:
        binder = Binder()
        where = FilterCompiler(binder, frozenset()).sql(request.where)
        has_list = _list_condition(fields, binder)
        if has_list is not None:
            where += f" AND {has_list}"
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


def _compile(table: Table, request: AggregateRequest, fields: list[Field]) -> Statement:
    binder = Binder()
    columns: list[str] = []
    for by in request.by:
        column = _scalar_column(path_of(by), binder)
        # Objects are no group keys: they count as no value.
        columns += [f"CASE WHEN {column.type_rank} < {OBJECT} THEN {column.type_rank} END", column.value]
    grouped = ", ".join(str(index + 1) for index in range(len(columns)))
    for measure in request.measures:
        columns += _measure_columns(measure, binder)
    where = FilterCompiler(binder, table.indexed).sql(request.where)
    has_list = _list_condition(fields, binder)
    if has_list is not None:
        where += f" AND NOT {has_list}"
    text = f"SELECT {', '.join(columns)} FROM {table.source} WHERE {where}"
    # Without `by`, no matching record means no group, not one empty group.
    return binder.statement(f"{text} GROUP BY {grouped}" if grouped else f"{text} HAVING count(*) > 0")


def _scalar_column(path: Path, binder: Binder) -> _ScalarColumn:
    field = field_of(path)
    match field:
        case AttributeField(value):
            return _ScalarColumn(str(TEXT), value)
        case JSONField():
            ranks = {kind: str(rank) for kind, rank in TYPE_RANKS.items() if kind != "array"}
            values = dict.fromkeys(("integer", "real", "text", "true", "false"), field.value(binder))
            return _ScalarColumn(
                field.by_type(ranks, None, binder, "NULL"), field.by_type(values, None, binder, "NULL")
            )
        case _:
            return _ScalarColumn("NULL", "NULL")


def _measure_columns(measure: Measure, binder: Binder) -> list[str]:
    if measure.path is None:
        return ["count(*)"]
    column = _scalar_column(measure.path, binder)
    match measure.function:
        case Function.COUNT:
            return [f"count({column.type_rank})"]
        case Function.SUM | Function.AVG:
            number = f"CASE WHEN {column.type_rank} = {NUMBER} THEN {column.value} END"
            integer = f"CASE typeof({number}) WHEN 'integer' THEN {number} END"
            # In two halves: sum() of integers overflows beyond 64 bits.
            return [
                f"count({number})",
                f"sum(({integer}) >> 32)",
                f"sum(({integer}) & 4294967295)",
                f"isthmus_sum({number})",
            ]
        case Function.MIN | Function.MAX:
            least = "min" if measure.function is Function.MIN else "max"
            return [
                f"{least}(CASE WHEN {column.type_rank} = {rank} THEN {column.value} END)"
                for rank in (BOOL, NUMBER, TEXT)
            ] + [f"count(CASE WHEN {column.type_rank} = {OBJECT} THEN 1 END)"]
        case Function.COUNT_DISTINCT | Function.PERCENTILE:
            raise AssertionError(f"{measure.function.value} is not pushed down")
        case _:
            assert_never(measure.function)


def _states(measures: tuple[Measure, ...], row: tuple[Any, ...]) -> list[State]:
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


def _key_part(key: GroupKey, type_rank: int | None, value: Any) -> Any:
    if type_rank is None:
        return None
    scalar = bool(value) if type_rank == BOOL else value
    return key.of(scalar) if isinstance(key, Bucket) else scalar
