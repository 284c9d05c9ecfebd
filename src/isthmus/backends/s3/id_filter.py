"""What a predicate says of record ids: judged exactly, and the span of ids that can match.

Keys come in the order of ids, so a leaf on `_id` is what S3 can search by: a listing begins and
ends there, and what is not wanted is never got.
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
    """Return whether the id alone decides the leaf, so that it is exact here."""
    return leaf.path.root is Root.ID and isinstance(
        leaf, Equal | Ordered | Between | In | StartsWith | EndsWith | Contains
    )


def is_id_predicate(predicate: Predicate) -> bool:
    """Return whether ids alone decide the predicate."""
    match predicate:
        case And(terms) | Or(terms):
            return all(map(is_id_predicate, terms))
        case Not(term):
            return is_id_predicate(term)
        case leaf:
            return is_id_leaf(leaf)


def compile_id_test(predicate: Predicate) -> IdTest:
    """Return the test of ids that no match fails: leaves about anything else pass.

    Below a `Not` stand leaves about ids alone: the core pushes nothing there that is not exact.
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
    """Where matches can be: from `low` up to `high`, both inclusive, or among a few ids alone."""

    low: str = ""
    high: str | None = None
    only: frozenset[str] | None = None


def id_range(predicate: Predicate) -> IdRange:
    """Return the span in which every match is."""
    span = IdRange()
    for term in predicate.terms if isinstance(predicate, And) else (predicate,):
        if not isinstance(term, And | Or | Not) and is_id_leaf(term):
            span = _intersect(span, _leaf_range(term))
    return span


def _intersect(left: IdRange, right: IdRange) -> IdRange:
    highs = [high for high in (left.high, right.high) if high is not None]
    onlies = [only for only in (left.only, right.only) if only is not None]
    return IdRange(
        max(left.low, right.low),
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
    """Return the least text beyond all that begin so; None if there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        following = ord(prefix[at]) + 1
        if following <= 0x10FFFF:
            # Surrogates are no characters.
            return prefix[:at] + chr(0xE000 if following == 0xD800 else following)
    return None
