"""Aggregates: SQL over the records without lists at the paths, and the evaluator's own for the others."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, assert_never

from isthmus._core.executor import AggregateRequest
from isthmus._path import Path
from isthmus._query.aggregate import Groups, State
from isthmus._query.ast import Function, Measure
from isthmus._query.order import BOOL, NONE, NUMBER, OBJECT, TEXT
from isthmus._record import Record
from isthmus.backends.sqlite.fields import TYPE_RANKS, AttributeField, Field, JSONField, NoField, field_of
from isthmus.backends.sqlite.filter import ROW, FilterCompiler
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import Binder, Statement, quote_name

_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class _ScalarColumn:
    """A path in SQL where no list is on it: the type's place, or NULL, and the scalar."""

    type_rank: str
    value: str


def aggregate(session: SQLiteSession, table: Table, request: AggregateRequest) -> Groups:
    """Return the groups' states; both queries see one state inside `Session.snapshot`."""
    paths = [*(m.path for m in request.measures if m.path is not None), *request.by]
    fields = [field_of(path, table.indexed) for path in dict.fromkeys(paths)]
    groups = Groups(request.measures)
    if all(isinstance(field, AttributeField | NoField | JSONField) for field in fields):
        for row in session.rows(_compile(table, request, fields)):
            key = tuple(_key_part(row[2 * at], row[2 * at + 1]) for at in range(len(request.by)))
            groups.add(key, _states(request.measures, row[2 * len(request.by) :]))
        rest = _list_condition(fields)
    else:
        rest = "1"  # a path that SQLite cannot say: every record is counted in here
    if rest != "0":
        _add_by_evaluator(session, table, request, groups, rest)
    return groups


def _add_by_evaluator(
    session: SQLiteSession, table: Table, request: AggregateRequest, groups: Groups, only: str | Any
) -> None:
    """Count in record by record; memory stays bounded."""
    last = ""
    while True:
        binder = Binder()
        rest = only if isinstance(only, str) else only(binder)
        where = f"{FilterCompiler(binder, table.indexed, use_indexes=False).sql(request.where)} AND {rest}"
        text = (
            f"SELECT {ROW} FROM {quote_name(table.name)} WHERE {where} AND id > {binder.value(last)}"
            f" ORDER BY id LIMIT {_BATCH}"
        )
        rows = session.rows(binder.statement(text))
        for id, data, metadata, version, created, updated in rows:
            record = Record.stored(id, data, metadata, str(version), created, updated)
            groups.add_record(record, request.by)
        if len(rows) < _BATCH:
            return
        last = rows[-1][0]


def _list_condition(fields: list[Field]) -> Any:
    """Return what compiles the condition that a list is at one of the paths or on the way to it."""
    said = [field for field in fields if isinstance(field, JSONField)]
    if not said:
        return "0"

    def compiled(binder: Binder) -> str:
        kinds = dict.fromkeys(
            field.kind(binder, depth) for field in said for depth in range(1, len(field.keys) + 1)
        )
        if not kinds:
            return "0"
        return "(" + " OR ".join(f"coalesce({kind}, '') = 'array'" for kind in kinds) + ")"

    return compiled


def _compile(table: Table, request: AggregateRequest, fields: list[Field]) -> Statement:
    binder = Binder()
    columns: list[str] = []
    for path in request.by:
        plain = _scalar_column(path, table, binder)
        # Objects are no group keys: they count as no value.
        columns += [f"CASE WHEN {plain.type_rank} < {OBJECT} THEN {plain.type_rank} END", plain.value]
    grouped = ", ".join(str(at + 1) for at in range(len(columns)))
    for measure in request.measures:
        columns += _measure_columns(measure, table, binder)
    where = FilterCompiler(binder, table.indexed).sql(request.where)
    listed = _list_condition(fields)
    if listed != "0":
        where += f" AND NOT {listed(binder)}"
    text = f"SELECT {', '.join(columns)} FROM {quote_name(table.name)} WHERE {where}"
    # Without groups, no matching record is no group, not one group of nothing.
    return binder.statement(f"{text} GROUP BY {grouped}" if grouped else f"{text} HAVING count(*) > 0")


def _scalar_column(path: Path, table: Table, binder: Binder) -> _ScalarColumn:
    field = field_of(path, table.indexed)
    match field:
        case AttributeField(value):
            return _ScalarColumn(str(TEXT), value)
        case JSONField():
            places = {kind: str(place) for kind, place in TYPE_RANKS.items() if kind != "array"}
            values = dict.fromkeys(("integer", "real", "text", "true", "false"), field.at(binder))
            return _ScalarColumn(
                field.by_type(places, None, binder, "NULL"), field.by_type(values, None, binder, "NULL")
            )
        case _:
            return _ScalarColumn("NULL", "NULL")


def _measure_columns(measure: Measure, table: Table, binder: Binder) -> list[str]:
    if measure.path is None:
        return ["count(*)"]
    plain = _scalar_column(measure.path, table, binder)
    match measure.function:
        case Function.COUNT:
            return [f"count({plain.type_rank})"]
        case Function.SUM | Function.AVG:
            number = f"CASE WHEN {plain.type_rank} = {NUMBER} THEN {plain.value} END"
            integer = f"CASE typeof({number}) WHEN 'integer' THEN {number} END"
            # In two halves: sum() of integers raises beyond 64 bits.
            return [
                f"count({number})",
                f"sum(({integer}) >> 32)",
                f"sum(({integer}) & 4294967295)",
                f"isthmus_sum({number})",
            ]
        case Function.MIN | Function.MAX:
            least = "min" if measure.function is Function.MIN else "max"
            return [
                f"{least}(CASE WHEN {plain.type_rank} = {place} THEN {plain.value} END)"
                for place in (BOOL, NUMBER, TEXT)
            ] + [f"count(CASE WHEN {plain.type_rank} = {OBJECT} THEN 1 END)"]
        case _:
            assert_never(measure.function)


def _states(measures: tuple[Measure, ...], row: tuple[Any, ...]) -> list[State]:
    values = iter(row)
    return [_state(measure, values) for measure in measures]


def _state(measure: Measure, values: Any) -> State:
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
            brackets: list[tuple[int, Any]] = []
            if truth is not None:
                brackets.append((BOOL, bool(truth)))
            if number is not None:
                brackets.append((NUMBER, number))
            if text is not None:
                brackets.append((TEXT, text))
            if objects:
                brackets.append((OBJECT, None))
            if not brackets:
                return (NONE, None)
            return brackets[0 if measure.function is Function.MIN else -1]
        case _:
            assert_never(measure.function)


def _key_part(type_rank: int | None, value: Any) -> Any:
    if type_rank is None:
        return None
    return bool(value) if type_rank == BOOL else value
