"""Evaluates predicates on record ids, and finds the range of ids that can match.

Keys sort as ids do, so S3 can search by leaves on `_id`: a listing is limited to their range, and
objects outside it are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from isthmus._path import Root
from isthmus._query.ast import (
    And,
    Between,
    Contains,
    EndsWith,
    Equal,
    In,
    Leaf,
    Not,
    Or,
    Order,
    Ordered,
    Predicate,
    StartsWith,
)
from isthmus.backends.s3.column_values import compile_value_test

IdTest: TypeAlias = Callable[[str], bool]


def is_id_leaf(leaf: Leaf) -> bool:
    """Return whether the id alone decides the leaf."""
    return leaf.path.root is Root.ID and isinstance(
        leaf, Equal | Ordered | Between | In | StartsWith | EndsWith | Contains
    )


def is_id_predicate(predicate: Predicate) -> bool:
    """Return whether the id alone decides the predicate."""
    match predicate:
        case And(terms) | Or(terms):
            return all(map(is_id_predicate, terms))
        case Not(term):
            return is_id_predicate(term)
        case leaf:
            return is_id_leaf(leaf)


def compile_id_test(predicate: Predicate) -> IdTest:
    """Return a test of ids that every match passes: leaves about anything else are taken as true.

    Below a `Not` there are only leaves about ids, since the core pushes only exact ones there.
    """
    match predicate:
        case And(terms):
            tests = [compile_id_test(term) for term in terms]
            return lambda one: all(test(one) for test in tests)
        case Or(terms):
            tests = [compile_id_test(term) for term in terms]
            return lambda one: any(test(one) for test in tests)
        case Not(term):
            if not is_id_predicate(term):
                return lambda one: True
            test = compile_id_test(term)
            return lambda one: not test(one)
        case leaf:
            return compile_value_test(leaf) if is_id_leaf(leaf) else lambda one: True


class IdRange(NamedTuple):
    """From `low` to `high`, both inclusive; `only`, if it is not None, lists all ids that can match."""

    low: str = ""
    high: str | None = None
    only: frozenset[str] | None = None


def id_range(predicate: Predicate) -> IdRange:
    """Return a range that contains the ids of all matches."""
    found = IdRange()
    for term in predicate.terms if isinstance(predicate, And) else (predicate,):
        if not isinstance(term, And | Or | Not) and is_id_leaf(term):
            found = _intersect(found, _leaf_range(term))
    return found


def _intersect(one: IdRange, other: IdRange) -> IdRange:
    highs = [high for high in (one.high, other.high) if high is not None]
    onlies = [only for only in (one.only, other.only) if only is not None]
    return IdRange(
        max(one.low, other.low),
        min(highs) if highs else None,
        frozenset.intersection(*onlies) if onlies else None,
    )


def _leaf_range(leaf: Leaf) -> IdRange:
    match leaf:
        case Equal(_, value):
            return IdRange(only=frozenset([value] if isinstance(value, str) else []))
        case In(_, values):
            return IdRange(only=frozenset(value for value in values if isinstance(value, str)))
        case Ordered(_, order, str(text)):
            return IdRange(low=text) if order in {Order.GT, Order.GE} else IdRange(high=text)
        case Between(_, str(low), str(high)):
            return IdRange(low, high)
        case StartsWith(_, text):
            return IdRange(text, _successor(text))
        case EndsWith() | Contains():
            return IdRange()
        case _:
            return IdRange(only=frozenset())


def _successor(prefix: str) -> str | None:
    """Return the least text that sorts after all texts with the prefix; None if there is none."""
    for last in range(len(prefix) - 1, -1, -1):
        following = ord(prefix[last]) + 1
        if following <= 0x10FFFF:
            # Surrogates are not characters.
            return prefix[:last] + chr(0xE000 if following == 0xD800 else following)
    return None
