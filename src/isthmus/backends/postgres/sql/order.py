"""Compiles orders, and positions in them, to SQL (meaning §4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isthmus._path import Path, Root
from isthmus._query.ast import SortKey
from isthmus._query.order import BOOL, NONE, NUMBER, OBJECT, TEXT, Position
from isthmus.backends.postgres.sql.extraction import Extraction
from isthmus.backends.postgres.sql.fields import ROW, FieldSQL, attribute, column_of, field_of
from isthmus.backends.postgres.sql.statement import Parameters
from isthmus.backends.postgres.sql.unpacking import row_for


def type_rank(value: str) -> str:
    """Return the rank of a value's type; NULL for no value."""
    return (
        f"CASE jsonb_typeof({value}) WHEN 'boolean' THEN {BOOL} WHEN 'number' THEN {NUMBER}"
        f" WHEN 'string' THEN {TEXT} WHEN 'object' THEN {OBJECT} END"
    )


def jsonb_value(value: str) -> str:
    """Return a bool or a number as jsonb, which orders these by value; NULL for other types."""
    return f"CASE WHEN jsonb_typeof({value}) IN ('boolean', 'number') THEN {value} END"


def text_value(value: str) -> str:
    """Return a text, ordered by code point; NULL for other types."""
    return f"""(CASE WHEN jsonb_typeof({value}) = 'string' THEN {value} #>> '{{}}' END COLLATE "C")"""


def value_terms(value: str, direction: str) -> str:
    """Return the `ORDER BY` terms for one value in the cross-type order."""
    return (
        f"{type_rank(value)} {direction}, {jsonb_value(value)} {direction}, {text_value(value)} {direction}"
    )


def sort_value(path: Path, *, largest: bool, row: str = ROW) -> str:
    """Return the value that a row of the table sorts by, as jsonb; NULL if it has none."""
    text = attribute(path)
    if text is not None:
        return f"to_jsonb({text})"
    field = field_of(path, row)
    one = f"CASE WHEN {field.kind} <> 'null' THEN {field.value} END"
    if not field.keys:
        return one
    return f"CASE WHEN {field.has_list} THEN {_from_list(field, largest=largest)} ELSE {one} END"


def _from_list(field: FieldSQL, *, largest: bool) -> str:
    direction = "DESC" if largest else "ASC"
    return f"(SELECT b.v FROM {field.values()} AS b ORDER BY {value_terms('b.v', direction)} LIMIT 1)"


def scalar_sort_value(key: SortKey, extraction: Extraction) -> tuple[str, str | None]:
    """Return the value that rows without a list sort by, and whether a row has one (None: never).

    Both are over the columns of an extraction, to which the path is added.
    """
    field = extraction.extract(key.path)
    return f"CASE WHEN {field.kind} <> 'null' THEN {field.value} END", field.has_list


def sort_value_in(key: SortKey, extraction: Extraction) -> str:
    """Return the value that any row sorts by, over the columns of an extraction with the alias `e`."""
    one, has_list = scalar_sort_value(key, extraction)
    if has_list is None:
        return one
    extraction.carry(column_of(key.path))
    from_list = _from_list(field_of(key.path, "e."), largest=key.descending)
    return f"CASE WHEN {has_list} THEN {from_list} ELSE {one} END"


@dataclass(frozen=True, slots=True)
class OrderSQL:
    """An order as SQL."""

    joins: str
    """Lateral subselects that compute each key's value once for a row."""
    order_by: str
    """The `ORDER BY` terms, the id last."""


def compile_order(order: tuple[SortKey, ...]) -> OrderSQL:
    """Return the general form of an order, for values of any type at any depth of lists."""
    row, join = row_for([key.path for key in order])
    joins = [join] if join else []
    for index, key in enumerate(order):
        if key.path.root is not Root.ID:
            # OFFSET 0 keeps the planner from copying the expression into each of its uses.
            value = sort_value(key.path, largest=key.descending, row=row)
            joins.append(f"CROSS JOIN LATERAL (SELECT {value} AS v OFFSET 0) AS s{index}")
    return OrderSQL(" ".join(joins), order_by(order, [f"s{index}.v" for index in range(len(order))]))


def order_by(order: tuple[SortKey, ...], values: list[str], id: str = "t.id") -> str:
    """Return the `ORDER BY` terms for the keys' values, the id last."""
    parts = []
    for key, value in zip(order, values, strict=True):
        direction = "DESC" if key.descending else "ASC"
        if key.path.root is Root.ID:
            parts.append(f"{id} {direction}")
            return ", ".join(parts)
        parts.append(f"({value} IS NULL) {'DESC' if key.nulls_first else 'ASC'}")
        parts.append(value_terms(value, direction))
    parts.append(f"{id} ASC")
    return ", ".join(parts)


def after_position(
    order: tuple[SortKey, ...], position: Position, values: list[str], params: Parameters
) -> str:
    """Return the condition that a row comes after a position; `values` are the keys' values."""
    equal: list[str] = []
    alternatives: list[str] = []
    for key, value, mark in zip(order, values, position, strict=False):
        if key.path.root is Root.ID:
            sign = "<" if key.descending else ">"
            alternatives.append(_all([*equal, f"t.id {sign} {params.text(mark[1])}"]))
            return _some(alternatives)
        after, tie = _compare_to(key, value, mark[0], mark[1], params)
        if after is not None:
            alternatives.append(_all([*equal, after]))
        equal.append(tie)
    alternatives.append(_all([*equal, f"t.id > {params.text(position[-1])}"]))
    return _some(alternatives)


def _compare_to(key: SortKey, value: str, rank: int, mark: Any, params: Parameters) -> tuple[str | None, str]:
    """Return the conditions that a value comes after a position's (None: none does), and that it ties."""
    if rank == NONE:
        return (f"{value} IS NOT NULL" if key.nulls_first else None), f"{value} IS NULL"
    sign = "<" if key.descending else ">"
    alternatives = [f"{type_rank(value)} {sign} {rank}"]
    tie = f"{type_rank(value)} = {rank}"
    match rank:
        case 0 | 1:
            edge = params.json(mark)
            alternatives.append(f"({tie} AND {value} {sign} {edge})")
            tie = f"({tie} AND {value} = {edge})"
        case 2:
            edge = params.text(mark)
            alternatives.append(f"({tie} AND {text_value(value)} {sign} {edge})")
            tie = f"({tie} AND {text_value(value)} = {edge})"
    if not key.nulls_first:
        alternatives.append(f"{value} IS NULL")
    return _some(alternatives), tie


def _all(conditions: list[str]) -> str:
    return "(" + " AND ".join(conditions) + ")"


def _some(conditions: list[str]) -> str:
    return "(" + " OR ".join(conditions) + ")"
