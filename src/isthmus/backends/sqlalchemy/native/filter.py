"""Compiles predicates to conditions on the columns of a table (meaning §3 and §8)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from isthmus._path import Path, Root
from isthmus._query.ast import (
    KNN,
    And,
    AnyObject,
    Contains,
    EndsWith,
    Equal,
    Exists,
    In,
    Leaf,
    Like,
    Not,
    Or,
    Predicate,
    StartsWith,
    TextMatch,
)
from isthmus._query.split import Pushdown
from isthmus._query.text import ANY_RUN, parse_like
from isthmus._values import JSON
from isthmus.backends._tables.binding import EXACT, bind_key
from isthmus.backends._tables.column import Kind
from isthmus.backends._tables.keys import key_of
from isthmus.backends._tables.leaves import ColumnComparison, canonical_kind, column_test
from isthmus.backends.sqlalchemy.native.statement import EVERY_ROW, NO_ROW, ValueBinder
from isthmus.backends.sqlalchemy.native.table import ColumnSQL, ReflectedTable

_TEXT_LEAVES = (Like, StartsWith, EndsWith, Contains)
_MAX_IDS = 1_000
"""Operands of one `in` on a key of several columns."""


def missing_column(table: ReflectedTable, path: Path) -> bool:
    """Return whether no record has a value at a path because the table has no such column."""
    if path.root is Root.DATA:
        return bool(path.keys) and path.keys[0] not in table.by_name
    return path.root in (Root.METADATA, Root.CREATED_AT, Root.UPDATED_AT)


def pushdown(table: ReflectedTable, leaf: Leaf) -> Pushdown:
    """Return how closely the SQL of a leaf matches its meaning."""
    path = leaf.path
    if isinstance(leaf, TextMatch | KNN):
        return Pushdown.NONE
    if path.root is Root.ID:
        return _pushdown_of_id(table, leaf)
    if missing_column(table, path):
        return Pushdown.EXACT
    if path.root is not Root.DATA or not path.keys:
        return Pushdown.NONE
    column = table.by_name[path.keys[0]]
    if canonical_kind(column.column) is None:
        return Pushdown.SUPERSET
    if len(path.keys) > 1:
        return Pushdown.EXACT
    test = column_test(column.column, leaf)
    if test is False or (test is not None and column.value is not None):
        return Pushdown.EXACT
    if column.column.kind is Kind.TEXT and column.value is not None and isinstance(leaf, _TEXT_LEAVES):
        return Pushdown.EXACT if like_pattern(leaf) is not None else Pushdown.SUPERSET
    return Pushdown.SUPERSET


def _pushdown_of_id(table: ReflectedTable, leaf: Leaf) -> Pushdown:
    comparable = all(column.value is not None for column in table.keys)
    if isinstance(leaf, In) and len(table.keys) > 1 and len(leaf.values) > _MAX_IDS:
        return Pushdown.NONE
    exact = comparable and isinstance(leaf, Equal | In | Exists)
    return Pushdown.EXACT if exact else Pushdown.NONE


def like_pattern(leaf: Leaf) -> str | None:
    """Return the pattern of a leaf for LIKE of bytes with `|` as its escape; None if there is none.

    `_` would be one byte, and a character has several.
    """
    match leaf:
        case StartsWith(_, text):
            return _escape(text) + "%"
        case EndsWith(_, text):
            return "%" + _escape(text)
        case Contains(_, text):
            return "%" + _escape(text) + "%"
        case Like(_, pattern, False):
            parts = parse_like(pattern)
            if all(isinstance(part, str) or part is ANY_RUN for part in parts):
                return "".join(_escape(part) if isinstance(part, str) else "%" for part in parts)
    return None


def _escape(text: str) -> str:
    return text.replace("|", "||").replace("%", "|%").replace("_", "|_")


class ColumnFilter:
    """Compiles the predicates of one statement. A condition may be NULL where it is false."""

    def __init__(self, table: ReflectedTable, binder: ValueBinder) -> None:
        self._table = table
        self._binder = binder

    def condition(self, predicate: Predicate) -> str:
        """Return the SQL condition of a predicate."""
        match predicate:
            case And(terms):
                return f"({' AND '.join(map(self.condition, terms))})" if terms else EVERY_ROW
            case Or(terms):
                return f"({' OR '.join(map(self.condition, terms))})" if terms else NO_ROW
            case Not(term):
                return f"(CASE WHEN {self.condition(term)} THEN 1 ELSE 0 END = 0)"
            case leaf:
                return self._leaf(leaf)

    def _leaf(self, leaf: Leaf) -> str:
        path = leaf.path
        if path.root is Root.ID:
            return self._on_id(leaf)
        column = self._table.by_name.get(path.keys[0]) if path.root is Root.DATA else None
        if column is None:
            return NO_ROW
        if canonical_kind(column.column) is None:
            return f"{column.source} IS NOT NULL"
        if len(path.keys) > 1 or isinstance(leaf, AnyObject):
            return NO_ROW
        test = column_test(column.column, leaf)
        if test is False:
            return NO_ROW
        if isinstance(test, ColumnComparison) and column.value is not None:
            return self._compare(column, test)
        pattern = like_pattern(leaf) if column.column.kind is Kind.TEXT and column.value is not None else None
        if pattern is not None:
            return self._like(column, leaf, pattern)
        return f"{column.source} IS NOT NULL"

    def _like(self, column: ColumnSQL, leaf: Leaf, pattern: str) -> str:
        exact = f"{column.value} LIKE {self._binder.bind(pattern.encode())} ESCAPE '|'"
        if isinstance(leaf, StartsWith) and leaf.text.isascii():
            # LIKE of characters ignores case where the collation does: an index finds candidates.
            return f"({column.source} LIKE {self._binder.bind(pattern)} ESCAPE '|' AND {exact})"
        return f"({exact})"

    def _compare(self, column: ColumnSQL, test: ColumnComparison) -> str:
        parts = [self._term(column, op, bound) for op, bound in test.terms]
        if column.valid is not None and not (parts and test.terms[0][0] in ("=", "in")):
            parts.append(column.valid)
        return f"({' AND '.join(parts)})" if parts else f"{column.source} IS NOT NULL"

    def _term(self, column: ColumnSQL, op: str, bound: Any) -> str:
        """Return the comparison with a bound, in the form that an index serves where there is one."""
        kind = column.column.kind
        if op in ("=", "in"):
            return self._equal(column, bound if op == "in" else (bound,))
        if kind is Kind.NUMERIC:
            return self._compare_numeric(column, op, bound)
        if kind in (Kind.TEXT, Kind.UUID):
            return f"{column.value} {op} {column.bind_canonical(self._binder, bound)}"
        if column.serves:
            return f"{column.source} {op} {column.bind(self._binder, bound)}"
        return f"{column.value} {op} {column.bind_canonical(self._binder, bound)}"

    def _equal(self, column: ColumnSQL, bounds: Sequence[Any]) -> str:
        if column.column.kind is Kind.NUMERIC:
            bounds = [bound for bound in bounds if _fits(column, bound)]
            if not bounds:
                return NO_ROW
        if _compares_value(column, bounds):
            return f"{column.value} {self._among(bounds, column, by_value=True)}"
        found = f"{column.source} {self._among(bounds, column)}"
        if column.column.labels is not None and "" in bounds:
            # A value that was no label reads as the empty text too; an index has it at another place.
            found = f"({found} OR {column.source} + 0 = 0)"
        if column.column.exact_equality:
            return found
        return f"({found} AND {column.value} {self._among(bounds, column, by_value=True)})"

    def _among(self, bounds: Sequence[Any], column: ColumnSQL, *, by_value: bool = False) -> str:
        bind = column.bind_canonical if by_value else column.bind
        texts = [bind(self._binder, bound) for bound in bounds]
        return f"= {texts[0]}" if len(texts) == 1 else f"IN ({', '.join(texts)})"

    def _compare_numeric(self, column: ColumnSQL, op: str, bound: Decimal) -> str:
        """Return the comparison with the nearest number that the column could hold."""
        scale = Decimal(1).scaleb(-(column.column.scale or 0))
        above = op in (">", ">=")
        limit = Decimal(10) ** ((column.column.precision or 10) - (column.column.scale or 0))
        if abs(bound) >= limit:
            return f"{column.source} IS NOT NULL" if (bound < 0) == above else NO_ROW
        nearest = bound.quantize(scale, ROUND_CEILING if above else ROUND_FLOOR, EXACT)
        if nearest != bound:
            op = ">=" if above else "<="
        if abs(nearest) >= limit:
            return NO_ROW
        return f"{column.source} {op} {column.bind(self._binder, nearest)}"

    def _on_id(self, leaf: Leaf) -> str:
        match leaf:
            case Exists():
                return EVERY_ROW
            case Equal(_, value):
                return self._has_id([value])
            case In(_, values):
                return self._has_id(values)
        raise AssertionError(leaf)

    def _has_id(self, ids: Sequence[Any]) -> str:
        """Return the condition that a row's id is one of some texts."""
        known = [key_of(self._table.table, id) for id in ids if isinstance(id, str)]
        keys = [key for key in known if key is not None]
        if not keys:
            return NO_ROW
        if len(self._table.keys) == 1:
            [column] = self._table.keys
            return self._equal(column, [bind_key(column.column, key[0]) for key in keys])
        return f"({' OR '.join(self._has_key(key) for key in keys)})"

    def _has_key(self, key: Sequence[JSON]) -> str:
        parts = [
            self._equal(column, [bind_key(column.column, value)])
            for column, value in zip(self._table.keys, key, strict=True)
        ]
        return f"({' AND '.join(parts)})"

    def by_key(self, keys: Sequence[Sequence[JSON]]) -> str:
        """Return the condition that a row has one of some keys as the store's own equality finds them."""
        columns = self._table.keys
        by_value = [
            _compares_value(column, parts)
            for column, parts in zip(columns, zip(*keys, strict=True), strict=True)
        ]
        operands = [
            str(column.value) if by else column.source for column, by in zip(columns, by_value, strict=True)
        ]
        bound = [
            [
                (column.bind_canonical if by else column.bind)(self._binder, bind_key(column.column, part))
                for column, by, part in zip(columns, by_value, key, strict=True)
            ]
            for key in keys
        ]
        if len(columns) == 1:
            return f"{operands[0]} IN ({', '.join(values[0] for values in bound)})"
        rows = [
            " AND ".join(f"{operand} = {value}" for operand, value in zip(operands, values, strict=True))
            for values in bound
        ]
        return " OR ".join(f"({row})" for row in rows)


def _compares_value(column: ColumnSQL, bounds: Sequence[Any]) -> bool:
    """Return whether a comparison is with the canonical value: with the column the store would refuse it.

    So it does with texts of which one has a character that the column's character set lacks.
    """
    if column.value is None:
        return False
    is_foreign = column.is_narrow and not all(str(bound).isascii() for bound in bounds)
    return is_foreign or not column.serves


def _fits(column: ColumnSQL, number: Decimal) -> bool:
    """Return whether a numeric column could hold a number."""
    scale, precision = column.column.scale or 0, column.column.precision or 10
    if abs(number) >= Decimal(10) ** (precision - scale):
        return False
    return number == number.quantize(Decimal(1).scaleb(-scale), ROUND_FLOOR, EXACT)
