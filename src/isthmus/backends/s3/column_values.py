"""Tests of leaves on the values at one path of a record, as columns hold them.

A column value holds all values that the path leads to (meaning §3): the value itself if it is one
scalar, None if there is none, a tuple in every other case. An id is its own column value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from isthmus._query.ast import (
    And,
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
    Not,
    Or,
    Order,
    Ordered,
    Predicate,
    Regex,
    StartsWith,
)
from isthmus._query.find import find_text
from isthmus._query.like import compile_like
from isthmus._query.lookup import value_in, values_in
from isthmus._query.patterns import compile_regex
from isthmus._values import kind_of, same

ColumnValue: TypeAlias = Any
ValueTest: TypeAlias = Callable[[Any], bool]

SCALARS = frozenset({bool, int, float, str})


def compile_value_test(leaf: Leaf) -> ValueTest:
    """Return the test of a leaf on a column value."""
    if isinstance(leaf, Exists):
        return lambda value: value is not None
    one = _compile_scalar_test(leaf)

    def test(value: ColumnValue) -> bool:
        if type(value) is tuple:
            return any(map(one, value))
        return value is not None and one(value)

    return test


def _compile_scalar_test(leaf: Leaf) -> ValueTest:
    """Return the test of a leaf on one value; values compare within their type only."""
    match leaf:
        case Equal(_, dict(operand)):
            return lambda value: same(value, operand)
        case Equal(_, operand):
            return _compile_equal(operand)
        case In(_, operands):
            # In a set, 1, 1.0 and True are equal.
            wanted = {(kind_of(operand), operand) for operand in operands}
            return lambda value: type(value) in SCALARS and (kind_of(value), value) in wanted
        case Ordered(_, order, operand):
            return _compile_comparison(order, operand)
        case Between(_, low, high):
            above, below = _compile_comparison(Order.GE, low), _compile_comparison(Order.LE, high)
            return lambda value: above(value) and below(value)
        case AnyObject(_, where):
            holds = _compile_object_test(where)
            return lambda value: type(value) is dict and holds(value)
        case _:
            text = _compile_text_test(leaf)
            return lambda value: type(value) is str and text(value)


def _compile_object_test(predicate: Predicate) -> ValueTest:
    """Return the test of a predicate on an object, at which its paths begin."""
    match predicate:
        case And(terms):
            tests = [_compile_object_test(term) for term in terms]
            return lambda value: all(test(value) for test in tests)
        case Or(terms):
            tests = [_compile_object_test(term) for term in terms]
            return lambda value: any(test(value) for test in tests)
        case Not(term):
            negated = _compile_object_test(term)
            return lambda value: not negated(value)
        case Exists(path):
            return lambda value: bool(values_in(value, path.keys))
        case EqualList(path, operand):
            return lambda value: same(value_in(value, path.keys), operand)
        case leaf:
            one, keys = _compile_scalar_test(leaf), leaf.path.keys
            return lambda value: any(map(one, values_in(value, keys)))


def _compile_equal(operand: Any) -> ValueTest:
    kinds = comparable_types(operand)
    return lambda value: value == operand and type(value) in kinds


def comparable_types(operand: Any) -> tuple[type, ...]:
    """Return the types of the values that are comparable with a scalar."""
    return (bool,) if isinstance(operand, bool) else (str,) if isinstance(operand, str) else (int, float)


def _compile_comparison(order: Order, operand: Any) -> ValueTest:
    kinds = comparable_types(operand)
    match order:
        case Order.LT:
            return lambda value: type(value) in kinds and value < operand
        case Order.LE:
            return lambda value: type(value) in kinds and value <= operand
        case Order.GT:
            return lambda value: type(value) in kinds and value > operand
        case Order.GE:
            return lambda value: type(value) in kinds and value >= operand


def _compile_text_test(leaf: Leaf) -> Callable[[str], bool]:
    match leaf:
        case Like(_, pattern, folded):
            return compile_like(pattern, folded=folded).match
        case Regex(_, pattern):
            return compile_regex(pattern).search
        case StartsWith(_, prefix):
            return lambda text: text.startswith(prefix)
        case EndsWith(_, suffix):
            return lambda text: text.endswith(suffix)
        case Contains(_, part):
            return lambda text: find_text(text, part, 0, len(text)) >= 0
        case _:
            raise AssertionError(leaf)
