"""Leaves of predicates on one column of a known kind, as comparisons that a store evaluates exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

from isthmus._query.ast import (
    AnyObject,
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
    Exists,
    In,
    Leaf,
    Like,
    Order,
    Ordered,
    Regex,
    StartsWith,
)
from isthmus._values import INT_MAX, INT_MIN, kind_of
from isthmus.backends._tables.binding import (
    parse_bytes,
    parse_date,
    parse_timestamp,
    parse_timestamptz,
    parse_uuid,
)
from isthmus.backends._tables.column import NUMBERS, TEXTS, Kind, TableColumn


class ColumnComparison(NamedTuple):
    """The conjunction of `(operator, bound)`, operators `= < <= > >=`; nothing for `exists`.

    The operator `in` has a tuple of bounds. Bounds are ints, floats, Decimals, bools, texts, UUIDs, dates,
    datetimes or bytes, as `binding.bind_value` gives them for the column. For a text the store has to compare
    by code point, whatever the column's collation. A stored value without a canonical form satisfies none.
    """

    terms: tuple[tuple[str, Any], ...]


NEVER = False
"""No value of the column satisfies the leaf."""
ColumnTest: TypeAlias = "ColumnComparison | bool | None"
"""None: no comparison of the column is exact; its canonical JSON has to be tested."""

EXISTS = ColumnComparison(())


def canonical_kind(column: TableColumn) -> str | None:
    """Return the kind of a column's canonical values, as `kind_of` names it; None if there are several."""
    if column.kind in NUMBERS:
        return "text" if column.numeric == "text" and column.kind is Kind.NUMERIC else "number"
    if column.kind is Kind.BOOL:
        return "bool"
    return "text" if column.kind in TEXTS else None


def column_test(column: TableColumn, leaf: Leaf) -> ColumnTest:
    """Return the comparison that a leaf at exactly this column is; NEVER, or None if none is exact."""
    kind = canonical_kind(column)
    if kind is None:
        return None
    match leaf:
        case Exists():
            return EXISTS
        case EqualList() | AnyObject():
            return NEVER
        case Like() | Regex() | StartsWith() | EndsWith() | Contains():
            return None if kind == "text" else NEVER
        case Equal(_, value):
            return _equal(column, [value]) if kind_of(value) == kind else NEVER
        case In(_, values):
            return _equal(column, [value for value in values if kind_of(value) == kind])
        case Ordered(_, op, value):
            return _range(column, [(op, value)]) if kind_of(value) == kind else NEVER
        case Between(_, low, high):
            wanted = [(Order.GE, low), (Order.LE, high)]
            return _range(column, wanted) if kind_of(low) == kind else NEVER
        case _:  # ranked
            return None


def _equal(column: TableColumn, operands: Iterable[Any]) -> ColumnTest:
    exactly = _EXACT.get(column.kind)
    if exactly is None or column.zone is not None or column.numeric != "exact":
        return None
    if column.labels is not None and not all(operand in column.labels for operand in operands):
        return None  # labels are added
    bounds = [bound for operand in operands if (bound := exactly(operand)) is not None]
    if not bounds:
        return NEVER
    return (
        ColumnComparison((("=", bounds[0]),))
        if len(bounds) == 1
        else ColumnComparison((("in", tuple(bounds)),))
    )


def _integer(value: Any) -> int | None:
    return int(value) if value == int(value) and INT_MIN <= value <= INT_MAX else None


def _float(value: Any) -> float | None:
    return float(value) if float(value) == value else None


_EXACT: dict[Kind, Callable[[Any], Any]] = {
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.NUMERIC: lambda value: Decimal(repr(value)),
    Kind.BOOL: lambda value: value,
    Kind.TEXT: lambda value: value,
    Kind.UUID: parse_uuid,
    Kind.DATE: parse_date,
    Kind.TIMESTAMP: parse_timestamp,
    Kind.TIMESTAMPTZ: parse_timestamptz,
    Kind.BYTES: parse_bytes,
}


def _range(column: TableColumn, wanted: list[tuple[Order, Any]]) -> ColumnTest:
    if column.zone is not None or column.numeric != "exact" or column.labels is not None:
        return None
    terms: list[tuple[str, Any]] = []
    for op, operand in wanted:
        term = _bound(column, op, operand)
        if term is None or term is NEVER:
            return term
        if term is not True:
            terms.append(term)
    return ColumnComparison(tuple(terms))


def _bound(column: TableColumn, op: Order, operand: Any) -> Any:
    """Return one bound; True if every value satisfies it, NEVER if none does, None if it is unknown here."""
    match column.kind:
        case Kind.INTEGER:
            return _integer_bound(op, operand)
        case Kind.FLOAT:
            return _float_bound(op, operand)
        case Kind.NUMERIC | Kind.BOOL | Kind.TEXT:
            return op.value, _EXACT[column.kind](operand)
        case Kind.UUID | Kind.DATE | Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            # Texts in canonical form sort as the values do; another text is between two of them.
            bound = _EXACT[column.kind](operand)
            return None if bound is None else (op.value, bound)
    return None


def _integer_bound(op: Order, operand: int | float) -> Any:
    above = op in (Order.GT, Order.GE)
    if operand > INT_MAX:
        return NEVER if above else True
    if operand < INT_MIN:
        return True if above else NEVER
    if operand == int(operand):
        return op.value, int(operand)
    return (">=", math.ceil(operand)) if above else ("<=", math.floor(operand))


def _float_bound(op: Order, operand: int | float) -> tuple[str, float]:
    nearest = float(operand)
    if nearest == operand:
        return op.value, nearest
    if op in (Order.GT, Order.GE):
        return (">=" if nearest > operand else ">"), nearest
    return ("<=" if nearest < operand else "<"), nearest
