"""Splits a predicate into a part that is pushed down and a residual that is evaluated client-side."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeAlias

from isthmus._path import Path
from isthmus._query.ast import (
    FALSE,
    KNN,
    MAX_DISTINCT,
    TRUE,
    And,
    AnyObject,
    EqualList,
    Exists,
    Leaf,
    Not,
    Or,
    Predicate,
    TextMatch,
    leaves,
    prefix_path,
)
from isthmus._query.normalize import normalize
from isthmus._value import Value
from isthmus.errors import QueryError


class Pushdown(enum.Enum):
    """How closely a store's native form of a leaf matches its meaning.

    EXACT finds the matching records; SUPERSET finds those and perhaps more; NONE is not sent.
    """

    EXACT = "exact"
    SUPERSET = "superset"
    NONE = "none"


PushdownOf: TypeAlias = Callable[[Leaf], Pushdown]


class Split(Value):
    """`pushed and residual` equals the predicate; `pushed` alone misses no match."""

    pushed: Predicate
    residual: Predicate


def split(predicate: Predicate, pushdown: PushdownOf) -> Split:
    """Return the part for the store and the residual for the evaluator.

    Terms of a top-level `And` are split one by one. A leaf that is not exact is replaced in the
    pushed tree: by its own superset form or true where it stands positively, by false under a
    `Not`, so that the pushed tree always holds where the predicate does.
    """
    predicate = fold(predicate)
    terms = predicate.terms if isinstance(predicate, And) else (predicate,)
    pushed: list[Predicate] = []
    residual: list[Predicate] = []
    for term in terms:
        pushed.append(_upper(term, pushdown))
        if not is_exact(term, pushdown):
            residual.append(term)
    return Split(normalize(And(tuple(pushed))), normalize(And(tuple(residual))))


def fold(predicate: Predicate) -> Predicate:
    """Return the normalized predicate; raises `QueryError` if it has too many different conditions."""
    predicate = normalize(predicate)
    count = len(leaves(predicate, inner=True))
    if count > MAX_DISTINCT:
        raise QueryError(
            f"a query has at most {MAX_DISTINCT} different conditions, this one has {count}; equalities on"
            " one field count as one"
        )
    return predicate


def is_exact(predicate: Predicate, pushdown: PushdownOf) -> bool:
    """Return whether every leaf is exact."""
    match predicate:
        case And(terms) | Or(terms):
            return all(is_exact(term, pushdown) for term in terms)
        case Not(term):
            return is_exact(term, pushdown)
        case leaf:
            return pushdown(leaf) is Pushdown.EXACT


def _upper(predicate: Predicate, pushdown: PushdownOf) -> Predicate:
    match predicate:
        case And(terms):
            return And(tuple(_upper(term, pushdown) for term in terms))
        case Or(terms):
            return Or(tuple(_upper(term, pushdown) for term in terms))
        case Not(term):
            return Not(_lower(term, pushdown))
        case AnyObject() as leaf:
            return leaf if pushdown(leaf) is Pushdown.EXACT else _upper(positive_part(leaf), pushdown)
        case leaf:
            return TRUE if pushdown(leaf) is Pushdown.NONE else leaf


def _lower(predicate: Predicate, pushdown: PushdownOf) -> Predicate:
    match predicate:
        case And(terms):
            return And(tuple(_lower(term, pushdown) for term in terms))
        case Or(terms):
            return Or(tuple(_lower(term, pushdown) for term in terms))
        case Not(term):
            return Not(_upper(term, pushdown))
        case leaf:
            return leaf if pushdown(leaf) is Pushdown.EXACT else FALSE


def positive_part(leaf: AnyObject) -> Predicate:
    """Return a superset of an `any` that has none in it: its positive conditions, on paths from the record.

    They may be satisfied by different objects. Each `not` inside is taken as true, and so is `=` with a
    list, which does not pass through the list of objects; if nothing is left, an object has to exist.
    """
    return normalize(_positive_any(leaf))


def _positive_any(leaf: AnyObject) -> Predicate:
    part = _prefix_positive(leaf.path, leaf.where)
    return Exists(leaf.path) if part == TRUE else part


def _prefix_positive(path: Path, where: Predicate) -> Predicate:
    # TRUE is folded on the way, as `_positive_any` looks for it: normalizing at each level would take the
    # product of depth and width.
    match where:
        case And(terms):
            parts = [_prefix_positive(path, term) for term in terms]
            return And(tuple(part for part in parts if part != TRUE))
        case Or(terms):
            parts = [_prefix_positive(path, term) for term in terms]
            return TRUE if TRUE in parts else Or(tuple(parts))
        case Not() | EqualList():
            return TRUE
        case leaf:
            outer = prefix_path(path, leaf)
            return _positive_any(outer) if isinstance(outer, AnyObject) else outer


def leaf_pushdown(leaf: Leaf, pushdown: PushdownOf) -> Pushdown:
    """Return how closely the pushed form of a leaf matches it; that of an `any` may be its positive part."""
    given = pushdown(leaf)
    if not isinstance(leaf, AnyObject) or given is Pushdown.EXACT:
        return given
    return Pushdown.NONE if normalize(_upper(leaf, pushdown)) == TRUE else Pushdown.SUPERSET


def drop_ranked(predicate: Predicate) -> Predicate:
    """Return the predicate with `match()` and `nearest()` taken as true: only the store evaluates those."""
    match predicate:
        case And(terms):
            return And(tuple(map(drop_ranked, terms)))
        case Or(terms):
            return Or(tuple(map(drop_ranked, terms)))
        case Not(term):
            return Not(drop_ranked(term))
        case TextMatch() | KNN():
            return TRUE
        case leaf:
            return leaf
