"""Keys in SQL: the id of a row, the row of an id, and the order of ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus._query.order import NUMBER, TEXT
from isthmus._values import JSON
from isthmus.backends._tables.binding import (
    parse_bytes,
)
from isthmus.backends._tables.keys import id_of, key_of
from isthmus.backends.sqlite.native.columns import Affinity, SQLiteColumn
from isthmus.backends.sqlite.native.functions import cell_arguments, key_number
from isthmus.backends.sqlite.native.table import SQLiteTable
from isthmus.backends.sqlite.order import Step
from isthmus.backends.sqlite.statement import Binder


def id_sql(table: SQLiteTable) -> str:
    """Return the id of a row as SQL; NULL if it has none."""
    keys = table.keys
    if len(keys) == 1 and keys[0].rowid:
        return f"CAST({keys[0].sql} AS TEXT)"
    return f"nullif(isthmus_key('{_flags(keys)}', {cell_arguments(keys)}), '')"


def _flags(keys: Sequence[SQLiteColumn]) -> str:
    return "".join("b" if key.boolean else "n" if key.affinity is Affinity.NONE else "-" for key in keys)


def key_condition(table: SQLiteTable, id: str, binder: Binder) -> str | None:
    """Return the condition that a row has this id; None if no row can have it. The key's index serves it."""
    key = key_of(table, id)
    if key is None:
        return None
    parts = [
        equals_cell(column, value, binder, numeric_text=len(key) == 1)
        for column, value in zip(table.keys, key, strict=True)
    ]
    return " AND ".join(parts)


def equals_cell(column: SQLiteColumn, value: JSON, binder: Binder, *, numeric_text: bool = False) -> str:
    """Return the condition that the canonical value of a cell is this scalar, in the same form.

    With `numeric_text` a number is also the text that it is written as.
    """
    match value:
        case bool():
            return _same(column, int(value), "'integer'", binder) if column.boolean else "0"
        case int() | float():
            found = _same(column, value, "'integer', 'real'", binder)
            if numeric_text and column.affinity is Affinity.NONE:
                return f"({found} OR {_equals_text(column, id_of((value,)), binder)})"
            return found
        case str():
            return _equals_text(column, value, binder)
    return "0"


def _equals_text(column: SQLiteColumn, value: str, binder: Binder) -> str:
    found = f"({same_text(column, value, binder)})"
    content = parse_bytes(value) if column.affinity is Affinity.NONE else None
    if content is None:
        return found
    return f"({found} OR {_bare_cell(column)} = {binder.value(content)})"


def same_text(column: SQLiteColumn, value: str, binder: Binder) -> str:
    """Return the condition that a cell is this text, by code point; an index finds the candidates."""
    operand = binder.value(value)
    test = f"typeof({column.sql}) = 'text' AND +{column.sql} = {operand} COLLATE BINARY"
    return f"{column.sql} = {operand} COLLATE {column.collation} AND {test}" if column.stored else test


def _same(column: SQLiteColumn, value: Any, types: str, binder: Binder) -> str:
    return f"({_bare_cell(column)} = {binder.value(value)} AND typeof({column.sql}) IN ({types}))"


def _bare_cell(column: SQLiteColumn) -> str:
    """Return a cell for a comparison with a number or bytes: an operand must not become a text."""
    return column.sql if column.stored and column.affinity is not Affinity.TEXT else f"+{column.sql}"


def order_terms(table: SQLiteTable) -> list[str]:
    """Return the expressions by which rows are in the order of their ids."""
    return [term for column in table.keys for term in _terms(column)]


def _terms(column: SQLiteColumn) -> list[str]:
    if _sorts_as_stored(column):
        return [column.sql if column.rowid else f"{column.sql} COLLATE BINARY"]
    part = f"isthmus_key('{_flags([column])}', {cell_arguments([column])})"
    if column.affinity is Affinity.TEXT:
        return [part]
    return [f"isthmus_key_rank({part})", f"isthmus_key_value({part})"]


def _sorts_as_stored(column: SQLiteColumn) -> bool:
    """Return whether SQLite's own order of cells is that of the ids: numbers, then texts."""
    return column.stored and column.affinity is not Affinity.NONE


def order_steps(table: SQLiteTable, id: str, binder: Binder, *, descending: bool = False) -> list[Step]:
    """Return the comparisons of a row with the place of an id, the most significant first."""
    sign = "<" if descending else ">"
    values = key_of(table, id)
    steps: list[Step] = []
    for column, value in zip(table.keys, values or (), strict=bool(values)):
        terms = _terms(column)
        for term, bound in zip(terms, _bounds(column, value, len(terms)), strict=True):
            steps.append((term, sign, binder.value(bound)))
    return steps


def _bounds(column: SQLiteColumn, value: JSON, count: int) -> list[Any]:
    if isinstance(value, bool) and _sorts_as_stored(column):
        return [int(value)]
    text = id_of((value,))
    if count == 1:
        return [value if _sorts_as_stored(column) else text]
    number = key_number(text)
    return [TEXT, text] if number is None else [NUMBER, number]
