"""Orders and places in them, as SQL (semantics §4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isthmus._path import Path, Root
from isthmus._query.ast import SortKey
from isthmus._query.order import BOOL, NONE, NUMBER, OBJECT, TEXT, Position
from isthmus.backends.postgres.sql.fields import attribute, field_of
from isthmus.backends.postgres.sql.statement import Bound


def bracket(value: str) -> str:
    """Return the place of a value's type among the types; NULL for no value."""
    return (
        f"CASE jsonb_typeof({value}) WHEN 'boolean' THEN {BOOL} WHEN 'number' THEN {NUMBER}"
        f" WHEN 'string' THEN {TEXT} WHEN 'object' THEN {OBJECT} END"
    )


def plain(value: str) -> str:
    """Return a bool or a number as jsonb, which orders those by value; NULL for the others."""
    return f"CASE WHEN jsonb_typeof({value}) IN ('boolean', 'number') THEN {value} END"


def characters(value: str) -> str:
    """Return a text, ordered by code point; NULL for the others."""
    return f"""(CASE WHEN jsonb_typeof({value}) = 'string' THEN {value} #>> '{{}}' END COLLATE "C")"""


def ranked(value: str, direction: str) -> str:
    """Return the `ORDER BY` terms for one value in the cross-type order."""
    return f"{bracket(value)} {direction}, {plain(value)} {direction}, {characters(value)} {direction}"


def best(path: Path, *, largest: bool) -> str:
    """Return the value that a row sorts by, as jsonb; NULL if it has none."""
    text = attribute(path)
    if text is not None:
        return f"to_jsonb({text})"
    field = field_of(path)
    one = f"CASE WHEN {field.kind} <> 'null' THEN {field.value} END"
    if not field.keys:
        return one
    direction = "DESC" if largest else "ASC"
    listed = f"(SELECT b.v FROM {field.values()} AS b ORDER BY {ranked('b.v', direction)} LIMIT 1)"
    return f"CASE WHEN {field.listed} THEN {listed} ELSE {one} END"


@dataclass(frozen=True, slots=True)
class Ranking:
    """An order as SQL: what to compute for each row, what to order by, and what comes after a place."""

    joins: str
    """Lateral subselects that compute each key's value once for a row."""
    terms: str
    """What to order by, the id last."""


def ranking(order: tuple[SortKey, ...]) -> Ranking:
    """Return the general form of an order, right for values of any type and any depth."""
    joins = []
    for place, key in enumerate(order):
        if key.path.root is not Root.ID:
            # OFFSET 0 keeps the planner from copying the expression into each of its uses.
            value = best(key.path, largest=key.descending)
            joins.append(f"CROSS JOIN LATERAL (SELECT {value} AS v OFFSET 0) AS s{place}")
    return Ranking(" ".join(joins), terms(order, [f"s{place}.v" for place in range(len(order))]))


def terms(order: tuple[SortKey, ...], values: list[str], id: str = "t.id") -> str:
    """Return the `ORDER BY` terms for the keys' values, the id last."""
    parts = []
    for key, value in zip(order, values, strict=True):
        direction = "DESC" if key.descending else "ASC"
        if key.path.root is Root.ID:
            parts.append(f"{id} {direction}")
            return ", ".join(parts)
        parts.append(f"({value} IS NULL) {'DESC' if key.nulls_first else 'ASC'}")
        parts.append(ranked(value, direction))
    parts.append(f"{id} ASC")
    return ", ".join(parts)


def after(order: tuple[SortKey, ...], at: Position, values: list[str], bound: Bound) -> str:
    """Return the condition that a row comes after a position; `values` are the keys' values."""
    equal: list[str] = []
    ways: list[str] = []
    for key, value, mark in zip(order, values, at, strict=False):
        if key.path.root is Root.ID:
            sign = "<" if key.descending else ">"
            ways.append(_all([*equal, f"t.id {sign} {bound.text(mark[1])}"]))
            return _some(ways)
        behind, level = _beside(key, value, mark[0], mark[1], bound)
        if behind is not None:
            ways.append(_all([*equal, behind]))
        equal.append(level)
    ways.append(_all([*equal, f"t.id > {bound.text(at[-1])}"]))
    return _some(ways)


def _beside(key: SortKey, value: str, place: int, mark: Any, bound: Bound) -> tuple[str | None, str]:
    """Return the conditions that a value comes after the mark (None: none does), and that it ties with it."""
    if place == NONE:
        return (f"{value} IS NOT NULL" if key.nulls_first else None), f"{value} IS NULL"
    sign = "<" if key.descending else ">"
    ways = [f"{bracket(value)} {sign} {place}"]
    tie = f"{bracket(value)} = {place}"
    match place:
        case 0 | 1:
            edge = bound.json(mark)
            ways.append(f"({tie} AND {value} {sign} {edge})")
            tie = f"({tie} AND {value} = {edge})"
        case 2:
            edge = bound.text(mark)
            ways.append(f"({tie} AND {characters(value)} {sign} {edge})")
            tie = f"({tie} AND {characters(value)} = {edge})"
    if not key.nulls_first:
        ways.append(f"{value} IS NULL")
    return _some(ways), tie


def _all(conditions: list[str]) -> str:
    return "(" + " AND ".join(conditions) + ")"


def _some(conditions: list[str]) -> str:
    return "(" + " OR ".join(conditions) + ")"
