"""Times, dates and decimals as whole numbers in their order, so that conditions become ranges of these."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

from isthmus._query.ast import Between, Equal, In, Leaf, Order, Ordered, StartsWith
from isthmus._times import format_datetime, from_micros
from isthmus._values import JSON, Scalar, kind_of

_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH = dt.date(1970, 1, 1).toordinal()
MAX_DIGITS = 15
"""The digits of decimals that are all different floats, of which the shortest form is the decimal."""


class Scale(NamedTuple):
    """The values of a column by whole numbers: a greater number is never a lesser value."""

    form: Literal["instant", "date", "decimal"]
    unit: str
    """Of instants, `s`, `ms`, `us` or `ns`."""
    digits: int
    """Of decimals, those after the point."""
    low: int
    """The least number with a value."""
    high: int
    """The greatest one."""

    @property
    def kind(self) -> str:
        """The type of the values: `text` or `number`."""
        return "number" if self.form == "decimal" else "text"

    def value(self, tick: int) -> Scalar:
        """Return the canonical value of a number."""
        if self.form == "date":
            return dt.date.fromordinal(tick + _EPOCH).isoformat()
        if self.form == "decimal":
            exact = decimal.Decimal(tick).scaleb(-self.digits)
            return int(exact) if exact == exact.to_integral_value() else float(exact)
        micros = tick // 1_000 if self.unit == "ns" else tick * (1_000_000 // _PER_SECOND[self.unit])
        return format_datetime(from_micros(micros))


def instants(unit: str) -> Scale:
    """Return the scale of timestamps in UTC."""
    ticks = _PER_SECOND[unit]
    low, high = _FIRST_SECOND * ticks, (_LAST_SECOND + 1) * ticks - 1
    return Scale("instant", unit, 0, max(low, -(2**63) + 1), min(high, 2**63 - 1))


DATES = Scale("date", "", 0, 1 - _EPOCH, dt.date.max.toordinal() - _EPOCH)


def decimals(precision: int, digits: int) -> Scale:
    """Return the scale of decimals of up to 15 digits."""
    return Scale("decimal", "", digits, 1 - 10**precision, 10**precision - 1)


Range = tuple[int, int]
"""Numbers from the first to before the second."""


def find_ranges(scale: Scale, leaf: Leaf) -> tuple[Range, ...] | None:
    """Return the ranges of numbers whose values satisfy a leaf; None if that has to be evaluated."""
    match leaf:
        case Equal(_, value) | Ordered(_, _, value) | Between(_, value, _):
            operands: tuple[JSON, ...] = (value,)
        case In(_, operands):
            leaf = In(leaf.path, tuple(one for one in leaf.values if kind_of(one) == scale.kind))
        case StartsWith(_, text):
            operands = (text,)
        case _:
            return None
    # What is kept knows only operands of the kind: a leaf with True is equal to one with 1.
    return _find_ranges(scale, leaf) if any(kind_of(one) == scale.kind for one in operands) else ()


@functools.lru_cache(maxsize=256)
def _find_ranges(scale: Scale, leaf: Equal | In | Ordered | Between | StartsWith) -> tuple[Range, ...]:
    above, from_ = _above(scale), _from(scale)
    match leaf:
        case Equal(_, operand):
            assert not isinstance(operand, dict)  # it is of the kind
            found = [(from_(operand), above(operand))]
        case In(_, operands):
            found = [(from_(operand), above(operand)) for operand in operands]
        case Ordered(_, op, operand):
            edge = (above if op in (Order.GT, Order.LE) else from_)(operand)
            greater = op in (Order.GT, Order.GE)
            found = [(edge, scale.high + 1) if greater else (scale.low, edge)]
        case Between(_, first, last):
            found = [(from_(first), above(last))]
        case StartsWith(_, prefix):
            width = len(prefix)
            found = [(from_(prefix), _first(scale, lambda value: str(value)[:width] > prefix))]
    return tuple((low, high) for low, high in found if low < high)


def _from(scale: Scale) -> Callable[[Scalar], int]:
    return lambda operand: _first(scale, lambda value: value >= operand)  # type: ignore[operator]


def _above(scale: Scale) -> Callable[[Scalar], int]:
    return lambda operand: _first(scale, lambda value: value > operand)  # type: ignore[operator]


def _first(scale: Scale, test: Callable[[Scalar], bool]) -> int:
    """Return the first number whose value passes a test that all greater ones pass; one above all if none."""
    low, high = scale.low, scale.high + 1
    while low < high:
        middle = (low + high) // 2
        if test(scale.value(middle)):
            high = middle
        else:
            low = middle + 1
    return low
