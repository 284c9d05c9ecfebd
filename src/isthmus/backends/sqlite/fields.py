"""Paths as SQL: the type and the value at a path, and the lists on the way to it."""

from __future__ import annotations

import contextlib
import functools
import math
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import orjson

from isthmus._path import Path, Root
from isthmus._query.order import BOOL, NUMBER, OBJECT, TEXT
from isthmus.backends.sqlite.statement import Binder, quote_text

CasesByType: TypeAlias = Mapping[str, str]
"""For each type, as `json_type` names it, the SQL that evaluates a value of this type."""
ByFunction: TypeAlias = Callable[[str, tuple[str, ...]], str]
"""Returns a call of one of our SQL functions, for a JSON text in SQL and the remaining keys."""

# The type ranks of `_query.order`, and two more for an index: no value, and a list at the path or before it.
NOTHING, LIST = 4, 5
TYPE_RANKS = {
    "integer": NUMBER,
    "real": NUMBER,
    "text": TEXT,
    "true": BOOL,
    "false": BOOL,
    "object": OBJECT,
    "array": LIST,
}
_COLUMNS = {Root.DATA: "data", Root.METADATA: "metadata"}


def _canonical_time(column: str) -> str:
    """Return the SQL that formats a time as `_values.format_datetime` does."""
    return (
        f"(strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000, 'unixepoch')"
        f" || printf('.%06dZ', {column} % 1000000))"
    )


_ATTRIBUTES = {
    Root.ID: "id",
    Root.VERSION: "CAST(version AS TEXT)",
    Root.CREATED_AT: _canonical_time("created_at"),
    Root.UPDATED_AT: _canonical_time("updated_at"),
}


UNREACHABLE = (
    "no path of SQLite's JSON reaches a key that is empty, or has a quote, backslash or control character"
)


def json_path(keys: tuple[str, ...]) -> str | None:
    """Return SQLite's JSON path, or None if a key cannot be part of one.

    SQLite before 3.45 compares the text between the quotes with the raw JSON, escapes included,
    and has no empty keys: such a path silently gives NULL.
    """
    for key in keys:
        if not key or '"' in key or "\\" in key or min(key) < " ":
            return None
    return "$" + "".join(f'."{key}"' for key in keys)


@functools.cache
def reads_numbers_exactly() -> bool:
    """Return whether this SQLite turns decimal text into the nearest double.

    It computes in 80-bit floats where the CPU has them (1.2 million values on x86-64 without a
    difference); elsewhere some versions are off by one in the last place. Then our functions
    evaluate every path.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        rows = connection.execute(
            "SELECT value FROM json_each(?)", (orjson.dumps(_PROBE).decode(),)
        ).fetchall()
    return [value for (value,) in rows] == _PROBE


_PROBE = [
    *(s * m * 10.0**e for s in (1, -1) for m in (1.1, 3.3, 7.7) for e in range(-300, 300, 7)),
    *(math.ldexp(1 + k / 7, e) for k in range(7) for e in range(-1022, 1022, 31)),
    5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 1 / 3, 2**53 + 2.0, 9.5367431640625e-07,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class AttributeField:
    """A record attribute: always one text."""

    value: str


@dataclass(frozen=True, slots=True)
class NoField:
    """A path that no record of this backend has, such as the score of a full-text search."""


@dataclass(frozen=True, slots=True)
class OpaqueField:
    """A path that SQL cannot express, for which functions of isthmus read the whole JSON document."""

    column: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JSONField:
    """A path that SQLite has a form for.

    Where a method takes `depth`, it means the first `depth` keys of the path, all by default. Without
    a binder the path is a literal, as in index expressions.
    """

    column: str
    keys: tuple[str, ...]

    def _path(self, depth: int, binder: Binder | None) -> str:
        path = json_path(self.keys[:depth])
        assert path is not None
        return quote_text(path) if binder is None else binder.value(path)

    def kind(self, binder: Binder | None, depth: int | None = None) -> str:
        """Return the SQL of the type at the path."""
        depth = len(self.keys) if depth is None else depth
        return f"json_type({self.column}, {self._path(depth, binder)})"

    def value(self, binder: Binder | None, depth: int | None = None) -> str:
        """Return the SQL of the value at the path."""
        depth = len(self.keys) if depth is None else depth
        return f"json_extract({self.column}, {self._path(depth, binder)})"

    def index_type_rank(self) -> str:
        """Return the index expression of the type rank: one of `TYPE_RANKS`, or `NOTHING`."""
        whens = " ".join(f"WHEN '{kind}' THEN {rank}" for kind, rank in TYPE_RANKS.items())
        return f"CASE {self.kind(None)} {whens} ELSE {self._list_before(None)} END"

    def index_scalar(self) -> str:
        """Return the index expression of a scalar."""
        return (
            f"CASE WHEN {self.kind(None)} IN ('integer', 'real', 'text', 'true', 'false')"
            f" THEN {self.value(None)} END"
        )

    def _list_before(self, binder: Binder | None) -> str:
        depths = range(1, len(self.keys))
        if not depths:
            return str(NOTHING)
        whens = " ".join(f"WHEN {self.kind(binder, depth)} THEN {LIST}" for depth in depths)
        return f"CASE 'array' {whens} ELSE {NOTHING} END"

    def by_type(
        self, cases: CasesByType, by_function: ByFunction | None, binder: Binder, otherwise: str
    ) -> str:
        """Return SQL that chooses a case by the type at the path.

        Lists, at the path or on the way to it, go to `by_function`. SQLite evaluates CASE lazily;
        AND and COALESCE call functions for every row.
        """
        whens = [f"WHEN '{kind}' THEN {sql}" for kind, sql in cases.items()]
        if by_function is not None:
            if "array" not in cases:
                whens.append(f"WHEN 'array' THEN {by_function(self.value(binder), ())}")
            before = [
                f"WHEN {self.kind(binder, depth)}"
                f" THEN {by_function(self.value(binder, depth), self.keys[depth:])}"
                for depth in range(1, len(self.keys))
            ]
            if before:
                otherwise = f"CASE 'array' {' '.join(before)} ELSE {otherwise} END"
        if not whens:
            return otherwise
        return f"CASE {self.kind(binder)} {' '.join(whens)} ELSE {otherwise} END"


Field: TypeAlias = AttributeField | JSONField | OpaqueField | NoField


def field_of(path: Path) -> Field:
    """Return the form of a path in SQL."""
    if path.root is Root.SCORE:
        return NoField()
    column = _COLUMNS.get(path.root)
    if column is None:
        return AttributeField(_ATTRIBUTES[path.root])
    if json_path(path.keys) is None or not reads_numbers_exactly():
        return OpaqueField(column, path.keys)
    return JSONField(column, path.keys)
