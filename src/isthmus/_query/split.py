"""What is pushed to the store and what is judged here."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeAlias

from isthmus._query.ast import FALSE, TRUE, And, Leaf, Matches, Nearest, Not, Or, Predicate
from isthmus._query.normalize import normalized
from isthmus._value import Value


class Grade(enum.Enum):
    """How well a store's native form of a leaf fits its meaning."""

    EXACT = "exact"
    SUPERSET = "superset"
    NONE = "none"


Grader: TypeAlias = Callable[[Leaf], Grade]


class Split(Value):
    """`pushed and residual` equals the predicate; `pushed` alone misses no match."""

    pushed: Predicate
    residual: Predicate


def split(predicate: Predicate, grade: Grader) -> Split:
    """Return what the store judges and what is left to the evaluator.

    Terms of a top-level `And` are split one by one. A leaf that is not exact is replaced in the
    pushed tree: by its own superset form or true where it stands positively, by false under a
    `Not`, so that the pushed tree always holds where the predicate does.
    """
    predicate = normalized(predicate)
    terms = predicate.terms if isinstance(predicate, And) else (predicate,)
    pushed: list[Predicate] = []
    residual: list[Predicate] = []
    for term in terms:
        pushed.append(_upper(term, grade))
        if not is_exact(term, grade):
            residual.append(term)
    return Split(normalized(And(tuple(pushed))), normalized(And(tuple(residual))))


def is_exact(predicate: Predicate, grade: Grader) -> bool:
    """Return whether every leaf is exact."""
    match predicate:
        case And(terms) | Or(terms):
            return all(is_exact(term, grade) for term in terms)
        case Not(term):
            return is_exact(term, grade)
        case leaf:
            return grade(leaf) is Grade.EXACT


def _upper(predicate: Predicate, grade: Grader) -> Predicate:
    match predicate:
        case And(terms):
            return And(tuple(_upper(term, grade) for term in terms))
        case Or(terms):
            return Or(tuple(_upper(term, grade) for term in terms))
        case Not(term):
            return Not(_lower(term, grade))
        case leaf:
            return TRUE if grade(leaf) is Grade.NONE else leaf


def _lower(predicate: Predicate, grade: Grader) -> Predicate:
    match predicate:
        case And(terms):
            return And(tuple(_lower(term, grade) for term in terms))
        case Or(terms):
            return Or(tuple(_lower(term, grade) for term in terms))
        case Not(term):
            return Not(_upper(term, grade))
        case leaf:
            return leaf if grade(leaf) is Grade.EXACT else FALSE


def without_matches(predicate: Predicate) -> Predicate:
    """Return the predicate with `match()` and `nearest()` taken as true: only the store can judge those."""
    match predicate:
        case And(terms):
            return And(tuple(map(without_matches, terms)))
        case Or(terms):
            return Or(tuple(map(without_matches, terms)))
        case Not(term):
            return Not(without_matches(term))
        case Matches() | Nearest():
            return TRUE
        case leaf:
            return leaf
