"""Conditions on flat columns as masks of Arrow: exact, a tenth of a microsecond a row at most.

A mask is true or false for every row: what has no value in a column is false for its leaf, so that `not`
is the complement.
"""

from __future__ import annotations

import decimal
import math
from typing import Any

from isthmus._query.ast import (
    RANKED,
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
from isthmus._query.evaluate import leaf_test
from isthmus._values import INT_MAX, INT_MIN, JSON, kind_of
from isthmus.backends.files.formats.arrow_columns import Columns, FlatColumn, NotCompiledError
from isthmus.backends.files.formats.arrow_library import arrow, compute, fill_false, make_array, make_scalar
from isthmus.backends.files.formats.ticks import Scale, find_ranges


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
    return arrow().repeat(make_scalar(value, arrow().bool_()), columns.batch.num_rows)


def _leaf(leaf: Leaf, columns: Columns) -> Any:
    column = columns.flat_column(leaf.path)
    if column is None or isinstance(leaf, EqualList):
        return _constant(columns, False)
    if column.codes is None:
        mask = _mask(leaf, column)
        return _constant(columns, False) if mask is None else mask
    mask = _mask_distinct(leaf, column)
    if mask is None:
        return _constant(columns, False)
    return fill_false(compute().take(mask, column.codes))


def _mask_distinct(leaf: Leaf, column: FlatColumn) -> Any:
    """Return the mask of the distinct values of a column, by the evaluator where Arrow has no function."""
    try:
        return _mask(leaf, column)
    except NotCompiledError:
        if column.kind != "text" or column.scale is not None or isinstance(leaf, RANKED):
            raise
        test = leaf_test(leaf)
        found = [value is not None and test(value) for value in column.array.to_pylist()]
        return make_array(found, arrow().bool_())


def _mask(leaf: Leaf, column: FlatColumn) -> Any:
    """Return the mask of the values that satisfy a leaf; None if none does."""
    if isinstance(leaf, Exists):
        return column.mask_present()
    mask = _values_mask(leaf, column) if column.scale is None else _ranges_mask(leaf, column, column.scale)
    if mask is None:
        return None
    mask = fill_false(mask)
    return mask if column.present is None else compute().and_(mask, column.present)


def _values_mask(leaf: Leaf, column: FlatColumn) -> Any:
    pc = compute()
    kind, array = column.kind, column.array
    match leaf:
        case Equal(_, operand):
            return _equal(kind, array, operand)
        case In(_, operands):
            return _one_of(kind, array, operands)
        case Ordered(_, op, operand):
            return _compare(kind, array, op, operand)
        case Between(_, low, high):
            return _both(_compare(kind, array, Order.GE, low), _compare(kind, array, Order.LE, high))
        case StartsWith(_, prefix):
            return pc.starts_with(array, prefix) if kind == "text" else None
        case EndsWith(_, suffix):
            return pc.ends_with(array, suffix) if kind == "text" else None
        case Contains(_, part):
            return pc.match_substring(array, part) if kind == "text" else None
        case _:
            raise NotCompiledError


def _ranges_mask(leaf: Leaf, column: FlatColumn, scale: Scale) -> Any:
    """Return the mask of the numbers that stand for values which satisfy a leaf."""
    ranges = find_ranges(scale, leaf)
    if ranges is None:
        raise NotCompiledError
    pc, array = compute(), column.array
    if len(ranges) > 1 and all(high - low == 1 for low, high in ranges):
        whole = make_array([_number(scale, low) for low, _ in ranges], array.type)
        return pc.is_in(array, value_set=whole)
    mask = None
    for low, high in ranges:
        one = pc.is_valid(array)
        if low > scale.low:
            one = pc.and_(one, pc.greater_equal(array, make_scalar(_number(scale, low), array.type)))
        if high <= scale.high:
            one = pc.and_(one, pc.less(array, make_scalar(_number(scale, high), array.type)))
        mask = one if mask is None else pc.or_(mask, one)
    return mask


def _number(scale: Scale, tick: int) -> int | str:
    """Return what stands for a tick in a column: a decimal as its digits."""
    return f"{decimal.Decimal(tick).scaleb(-scale.digits):f}" if scale.form == "decimal" else tick


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
    if 0.0 in values and pa.types.is_floating(array.type):
        values.append(-0.0)  # `is_in` takes them for different values, unlike comparisons
    set_of = make_array(values, _comparable(kind, array))
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
        return make_scalar(operand, type_)
    assert isinstance(operand, int | float)
    if pa.types.is_integer(type_):
        if isinstance(operand, float) and not operand.is_integer():
            return None
        whole = int(operand)
        return make_scalar(whole, type_) if INT_MIN <= whole <= INT_MAX else None
    number = float(operand)
    return make_scalar(number, type_) if number == operand else None


def _compare(kind: str, array: Any, op: Order, operand: JSON) -> Any:
    """Return the mask of an order; None if no value is of the operand's type or on its side."""
    pa, pc = arrow(), compute()
    if isinstance(operand, dict | list) or operand is None or kind_of(operand) != kind:
        return None
    test = {Order.LT: pc.less, Order.LE: pc.less_equal, Order.GT: pc.greater, Order.GE: pc.greater_equal}[op]
    if kind != "number":
        if kind == "bool":
            array, operand = array.cast(pa.int8()), int(bool(operand))
        return test(array, make_scalar(operand, array.type))
    assert isinstance(operand, int | float)
    if pa.types.is_integer(array.type):
        low = op in (Order.LE, Order.GT)
        if isinstance(operand, float):
            operand = math.floor(operand) if low else math.ceil(operand)
        if operand > INT_MAX or operand < INT_MIN:
            above = operand > INT_MAX
            return pc.is_valid(array) if above == (op in (Order.LT, Order.LE)) else None
        return test(array, make_scalar(operand, pa.int64()))
    if float(operand) != operand:  # an integer that no float equals
        raise NotCompiledError
    return test(array, make_scalar(float(operand), pa.float64()))
