"""Conditions on flat columns as masks of Arrow: exact, a tenth of a microsecond a row at most.

A mask is true or false for every row: what has no value in a column is false for its leaf, so that `not`
is the complement.
"""

from __future__ import annotations

import math
from typing import Any

from isthmus._path import Path, Root
from isthmus._query.ast import (
    And,
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
    Exists,
    In,
    Leaf,
    Not,
    Or,
    Order,
    Ordered,
    Predicate,
    StartsWith,
)
from isthmus._values import INT_MAX, INT_MIN, JSON, kind_of
from isthmus.backends.files.formats.arrow_values import arrow, compute, has_zero_byte

_EXACT = 2**53


class NotCompiledError(Exception):
    """A condition that the evaluator has to decide."""


class Columns:
    """The columns of a batch, as the masks take them."""

    def __init__(self, batch: Any, names: frozenset[str]) -> None:
        self.batch = batch
        self._names = names
        """The columns of the whole file: others have no value."""
        self._known: dict[str, tuple[str, Any, Any] | None] = {}

    def flat_column(self, path: Path) -> tuple[str, Any, Any] | None:
        """Return the kind of a column, its array and the mask of its values; None if it has no value.

        Raises `NotCompiledError` for a type that is not flat.
        """
        if path.root is not Root.DATA or not path.keys:
            raise NotCompiledError
        name = path.keys[0]
        if name not in self._names:
            return None
        if name not in self._known:
            self._known[name] = self._resolve(name)
        known = self._known[name]
        return None if len(path.keys) > 1 else known

    def _resolve(self, name: str) -> tuple[str, Any, Any] | None:
        return _flat_column(self.batch.column(name))


def _flat_column(array: Any) -> tuple[str, Any, Any] | None:
    pa, pc = arrow(), compute()
    types = pa.types
    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if types.is_null(kind):
        return None
    if types.is_boolean(kind):
        return "bool", array, array.is_valid()
    if types.is_integer(kind) and not types.is_uint64(kind):
        return "number", array, array.is_valid()
    if types.is_float64(kind) or types.is_float32(kind):
        return "number", array, pc.fill_null(pc.is_finite(array), False)
    if (types.is_string(kind) or types.is_large_string(kind)) and not has_zero_byte(array):
        return "text", array, array.is_valid()
    raise NotCompiledError


def compile_mask(where: Predicate, columns: Columns) -> Any:
    """Return the mask of the rows that match; raises `NotCompiledError` if the evaluator has to decide."""
    pc = compute()
    match where:
        case And(terms) | Or(terms):
            combine = pc.and_ if isinstance(where, And) else pc.or_
            masks = [compile_mask(term, columns) for term in terms]
            if not masks:
                return _constant(columns, isinstance(where, And))
            mask = masks[0]
            for other in masks[1:]:
                mask = combine(mask, other)
            return mask
        case Not(term):
            return pc.invert(compile_mask(term, columns))
        case leaf:
            return _leaf(leaf, columns)


def _constant(columns: Columns, value: bool) -> Any:
    return arrow().repeat(arrow().scalar(value), columns.batch.num_rows)


def _leaf(leaf: Leaf, columns: Columns) -> Any:
    pc = compute()
    found = columns.flat_column(leaf.path)
    if found is None or isinstance(leaf, EqualList):
        return _constant(columns, False)
    kind, array, there = found
    match leaf:
        case Exists():
            return there
        case Equal(_, operand):
            mask = _equal(kind, array, operand)
        case In(_, operands):
            mask = _one_of(kind, array, operands)
        case Ordered(_, op, operand):
            mask = _compare(kind, array, op, operand)
        case Between(_, low, high):
            mask = _both(_compare(kind, array, Order.GE, low), _compare(kind, array, Order.LE, high))
        case StartsWith(_, prefix):
            mask = pc.starts_with(array, prefix) if kind == "text" else None
        case EndsWith(_, suffix):
            mask = pc.ends_with(array, suffix) if kind == "text" else None
        case Contains(_, part):
            mask = pc.match_substring(array, part) if kind == "text" else None
        case _:
            raise NotCompiledError
    return _constant(columns, False) if mask is None else pc.and_(pc.fill_null(mask, False), there)


def _both(one: Any, other: Any) -> Any:
    return None if one is None or other is None else compute().and_(one, other)


def _equal(kind: str, array: Any, operand: JSON) -> Any:
    """Return the mask of equality; None if no value is equal."""
    value = _operand(kind, array, operand)
    return None if value is None else compute().equal(array, value)


def _one_of(kind: str, array: Any, operands: tuple[JSON, ...]) -> Any:
    pa = arrow()
    values = [value.as_py() for one in operands if (value := _operand(kind, array, one)) is not None]
    if not values:
        return None
    set_of = pa.array(values, _comparable(kind, array))
    return compute().is_in(array.cast(set_of.type), value_set=set_of)


def _comparable(kind: str, array: Any) -> Any:
    """Return the type in which values of a column are compared without loss."""
    pa = arrow()
    if kind == "number":
        return pa.int64() if pa.types.is_integer(array.type) else pa.float64()
    return array.type


def _operand(kind: str, array: Any, operand: JSON) -> Any:
    """Return an operand as a scalar; None if it equals no value of the column."""
    if isinstance(operand, dict | list) or operand is None or kind_of(operand) != kind:
        return None
    pa = arrow()
    type_ = _comparable(kind, array)
    if kind != "number":
        return pa.scalar(operand, type_)
    assert isinstance(operand, int | float)
    if pa.types.is_integer(type_):
        if isinstance(operand, float) and not operand.is_integer():
            return None
        whole = int(operand)
        return pa.scalar(whole, type_) if INT_MIN <= whole <= INT_MAX else None
    number = float(operand)
    return pa.scalar(number, type_) if number == operand else None


def _compare(kind: str, array: Any, op: Order, operand: JSON) -> Any:
    """Return the mask of an order; None if no value is of the operand's type or on its side."""
    pa, pc = arrow(), compute()
    if isinstance(operand, dict | list) or operand is None or kind_of(operand) != kind:
        return None
    test = {Order.LT: pc.less, Order.LE: pc.less_equal, Order.GT: pc.greater, Order.GE: pc.greater_equal}[op]
    if kind != "number":
        if kind == "bool":
            array, operand = array.cast(pa.int8()), int(bool(operand))
        return test(array, pa.scalar(operand, array.type))
    assert isinstance(operand, int | float)
    if pa.types.is_integer(array.type):
        low = op in (Order.LE, Order.GT)
        if isinstance(operand, float):
            operand = math.floor(operand) if low else math.ceil(operand)
        if operand > INT_MAX or operand < INT_MIN:
            above = operand > INT_MAX
            return pc.is_valid(array) if above == (op in (Order.LT, Order.LE)) else None
        return test(array, pa.scalar(operand, pa.int64()))
    if float(operand) != operand:  # an integer that no float equals
        raise NotCompiledError
    return test(array, pa.scalar(float(operand), pa.float64()))
