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
from isthmus.backends.s3.cells import cell_test

Test: TypeAlias = Callable[[str], bool]


def judged_by_id(leaf: Leaf) -> bool:
    """Return whether the id alone decides the leaf, so that it is exact here."""
    return leaf.path.root is Root.ID and isinstance(
        leaf, Equal | Ordered | Between | In | StartsWith | EndsWith | Contains
    )


def only_ids(predicate: Predicate) -> bool:
    """Return whether ids alone decide the predicate."""
    match predicate:
        case And(terms) | Or(terms):
            return all(map(only_ids, terms))
        case Not(term):
            return only_ids(term)
        case leaf:
            return judged_by_id(leaf)


def by_id(predicate: Predicate) -> Test:
    """Return the test of ids that no match fails: leaves about anything else pass.

    Below a `Not` stand leaves about ids alone: the core pushes nothing there that is not exact.
    """
    match predicate:
        case And(terms):
            tests = [by_id(term) for term in terms]
            return lambda one: all(test(one) for test in tests)
        case Or(terms):
            tests = [by_id(term) for term in terms]
            return lambda one: any(test(one) for test in tests)
        case Not(term):
            if not only_ids(term):
                return lambda one: True
            test = by_id(term)
            return lambda one: not test(one)
        case leaf:
            return cell_test(leaf) if judged_by_id(leaf) else lambda one: True


class Span(NamedTuple):
    """Where matches can be: from `low` up to `high`, both inclusive, or among a few ids alone."""

    low: str = ""
    high: str | None = None
    only: frozenset[str] | None = None


def span_of(predicate: Predicate) -> Span:
    """Return the span in which every match is."""
    span = Span()
    for term in predicate.terms if isinstance(predicate, And) else (predicate,):
        if not isinstance(term, And | Or | Not) and judged_by_id(term):
            span = _meet(span, _leaf_span(term))
    return span


def _meet(left: Span, right: Span) -> Span:
    highs = [high for high in (left.high, right.high) if high is not None]
    onlies = [only for only in (left.only, right.only) if only is not None]
    return Span(
        max(left.low, right.low),
        min(highs) if highs else None,
        frozenset.intersection(*onlies) if onlies else None,
    )


def _leaf_span(leaf: Leaf) -> Span:
    match leaf:
        case Equal(_, value):
            return Span(only=frozenset([value] if isinstance(value, str) else []))
        case In(_, values):
            return Span(only=frozenset(value for value in values if isinstance(value, str)))
        case Ordered(_, order, str(text)):
            return Span(low=text) if order in {Order.GT, Order.GE} else Span(high=text)
        case Between(_, str(low), str(high)):
            return Span(low, high)
        case StartsWith(_, text):
            return Span(text, _beyond(text))
        case EndsWith() | Contains():
            return Span()
        case _:
            return Span(only=frozenset())


def _beyond(prefix: str) -> str | None:
    """Return the least text beyond all that begin so; None if there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        following = ord(prefix[at]) + 1
        if following <= 0x10FFFF:
            # Surrogates are no characters.
            return prefix[:at] + chr(0xE000 if following == 0xD800 else following)
    return None
