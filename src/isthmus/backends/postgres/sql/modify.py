"""Compiles modifications to one UPDATE, as far as SQL can be exact; the rest is left to the core.

Each change becomes a new value and a test of the stored one: objects on the way, a number where a
number is added, and so on. A row that fails a test is not changed natively. Nothing is cast that
the test does not admit, so that no row raises an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus._core.modify import Modification
from isthmus._path import Path, Root
from isthmus._query.ast import TRUE, Predicate
from isthmus._query.changes import FieldChange, Inc, Max, Min, Push, Set, Unset
from isthmus._values import INT_MAX, INT_MIN, MAX_DEPTH
from isthmus.backends.postgres.sql.column_filter import condition
from isthmus.backends.postgres.sql.fields import field_of
from isthmus.backends.postgres.sql.statement import Parameters, Statement
from isthmus.backends.postgres.sql.table import Table

# Below this a double is printed without an exponent, which jsonb would take for an integer.
_PLAIN_FLOAT = 10.0**15
# Each unpacks the document and makes another one, which is freed after the row (docs/decisions/0024).
_MOST_CHANGES = 8
# SQLSTATE 22012 stands for "this row is left to the core". The version is never constant, so that the
# planner does not divide while it simplifies the statement.
_REFUSE = "to_jsonb(1 / (t.version * 0))"
DIVISION_BY_ZERO = "22012"


def update_one(
    table: Table, modification: Modification, version: int, expected: int | None
) -> Statement | None:
    """Return the update of one row; it changes none if the row is to be looked at by the core.

    None if no statement is exact.
    """
    params = Parameters(table.json_array)
    compiled = _compile(modification.changes, params)
    if compiled is None:
        return None
    value, tests = compiled
    conditions = [f"t.id = {params.text(modification.id)}"]
    if expected is not None:
        conditions.append(f"t.version = {params.bigint(expected)}")
    if modification.where != TRUE:
        conditions.append(condition(table, modification.where, params))
    conditions += tests
    return Statement(_update(table, value, params, version, " AND ".join(conditions)), params.args)


def update_where(
    table: Table, where: Predicate, changes: Sequence[FieldChange], version: int
) -> Statement | None:
    """Return the update of the matching rows.

    It fails with `DIVISION_BY_ZERO` if one of them is to be looked at by the core. None if no
    statement is exact.
    """
    params = Parameters(table.json_array)
    compiled = _compile(changes, params)
    if compiled is None:
        return None
    value, tests = compiled
    if tests:
        value = f"CASE WHEN {' AND '.join(tests)} THEN {value} ELSE {_REFUSE} END"
    matching = condition(table, where, params)
    return Statement(_update(table, value, params, version, matching), params.args)


def _update(table: Table, value: str, params: Parameters, version: int, condition: str) -> str:
    return (
        f"UPDATE {table.sql} AS t SET data = {value}, version = {params.bigint(version)},"
        f" {table.touch} WHERE {condition}"
    )


def _compile(changes: Sequence[FieldChange], params: Parameters) -> tuple[str, list[str]] | None:
    """Return the new data and the tests of the stored data; None if there is no exact SQL.

    The tests are on the data before all changes, so no change may alter what another one meets.
    """
    if len(changes) > _MOST_CHANGES:
        return None
    paths = [change.path.keys for change in changes]
    for index, keys in enumerate(paths):
        for other in paths[index + 1 :]:
            shorter = min(len(keys), len(other))
            if keys[:shorter] == other[:shorter]:
                return None
    data, tests = "t.data", []
    for change in changes:
        keys = change.path.keys
        parents = [Path(Root.DATA, keys[:end]) for end in range(1, len(keys))]
        tests += [f"{field_of(parent).kind} = 'object'" for parent in parents]
        path = params.texts(keys)
        if isinstance(change, Unset):
            data = f"({data} #- {path})"
            continue
        compiled = _new_value(change, field_of(change.path).value, params)
        if compiled is None:
            return None
        value, test = compiled
        data = f"jsonb_set({data}, {path}, {value})"
        if test:
            tests.append(test)
    # A parent is never NULL where it is an object; a comparison with NULL is no match, as it should be.
    return data, tests


def _new_value(change: FieldChange, old: str, params: Parameters) -> tuple[str, str] | None:
    """Return the new value and the test under which it is right ("" for always)."""
    depth = len(change.path.keys)
    missing = f"COALESCE(jsonb_typeof({old}), 'null') = 'null'"
    match change:
        case Set(_, value):
            return None if _depth(value) + depth > MAX_DEPTH else (f"{params.json(value)}", "")
        case Inc(_, amount) if isinstance(amount, int):
            return _add_integer(old, missing, amount, params)
        case Inc(_, amount):
            return _add_float(old, missing, amount, params)
        case Push(_, values):
            if max(map(_depth, values)) + depth + 1 > MAX_DEPTH:
                return None
            added = params.json(list(values))
            value = f"CASE WHEN {missing} THEN {added} ELSE {old} || {added} END"
            return value, f"({missing} OR jsonb_typeof({old}) = 'array')"
        case Max(_, value) | Min(_, value):
            given, sign = params.json(value), "<" if isinstance(change, Max) else ">"
            kind = "string" if isinstance(value, str) else "number"
            less = f"{old} {sign} {given}"
            if isinstance(value, str):  # by code point, as UTF-8 sorts in bytes
                less = f"""({old} #>> '{{}}') COLLATE "C" {sign} {params.text(value)}"""
            result = f"CASE WHEN {missing} OR {less} THEN {given} ELSE {old} END"
            return result, f"({missing} OR jsonb_typeof({old}) = '{kind}')"
    return None


def _add_integer(old: str, missing: str, amount: int, params: Parameters) -> tuple[str, str]:
    """Add to an integer; a float has a decimal point in its text, or is beyond 64 bits."""
    added = params.bigint(amount)
    total = f"({old}::numeric + {added})"
    is_integer = f"jsonb_typeof({old}) = 'number' AND {old}::text NOT LIKE '%.%'"
    fits = f"{total} BETWEEN {INT_MIN} AND {INT_MAX} AND {old}::numeric BETWEEN {INT_MIN} AND {INT_MAX}"
    value = f"CASE WHEN {missing} THEN to_jsonb({added}) ELSE to_jsonb({total}) END"
    return value, f"CASE WHEN {missing} THEN TRUE WHEN {is_integer} THEN {fits} ELSE FALSE END"


def _add_float(old: str, missing: str, amount: float, params: Parameters) -> tuple[str, str] | None:
    """Add doubles; an integral sum gets a decimal point, so that it stays a float."""
    if not -_PLAIN_FLOAT < amount < _PLAIN_FLOAT:
        return None
    added, first = params.float8(amount), params.json(amount)
    total = f"({old}::numeric::float8 + {added})"
    text = f"CASE WHEN {total} = trunc({total}) THEN {total}::numeric::text || '.0' ELSE {total}::text END"
    limit = f"{_PLAIN_FLOAT:.0f}"
    fits = (
        f"abs({old}::numeric) < {limit} AND abs({old}::numeric::float8 + {added}) < {limit}"
        " AND current_setting('extra_float_digits')::int4 > 0"
    )
    value = f"CASE WHEN {missing} THEN {first} ELSE ({text})::jsonb END"
    test = f"CASE WHEN {missing} THEN TRUE WHEN jsonb_typeof({old}) = 'number' THEN {fits} ELSE FALSE END"
    return value, test


def _depth(value: Any) -> int:
    """Return how many objects and lists are around the innermost value."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
