"""How closely the query of a leaf matches its meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from isthmus._path import Root
from isthmus._query.ast import (
    KNN,
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
    Ordered,
    Regex,
    StartsWith,
    TextMatch,
)
from isthmus._query.split import Pushdown
from isthmus.backends.elasticsearch.read import patterns
from isthmus.backends.elasticsearch.read.filter import TIMES, Compiler, flatten, is_field
from isthmus.backends.elasticsearch.read.term_values import is_time
from isthmus.backends.elasticsearch.vectors import Vectors, knn_clause


def pushdown(leaf: Leaf, fulltext: Iterable[str], vectors: Vectors) -> Pushdown:
    """Return how closely a leaf's query matches its meaning, for records that are indexed at its path.

    Raises `UnsupportedError` for full text or vectors that the index does not have.
    """
    path = leaf.path
    if isinstance(leaf, AnyObject):  # a document's fields do not tell which values are of one object
        return Pushdown.NONE
    if isinstance(leaf, TextMatch):
        Compiler({}, fulltext).core(leaf)  # refuses a field without full text
        return Pushdown.EXACT
    if isinstance(leaf, KNN):
        knn_clause(leaf, vectors, {})  # refuses a field without vectors
        return Pushdown.EXACT
    if path.root in (Root.VERSION, Root.SCORE):
        return Pushdown.NONE
    if path.root is Root.METADATA and not path.keys:
        return Pushdown.EXACT if isinstance(leaf, Exists) else Pushdown.NONE
    if path.root in TIMES:
        return _pushdown_time(leaf)
    match leaf:
        case Equal(_, dict()):
            return Pushdown.SUPERSET if is_field(path) else Pushdown.EXACT
        case EqualList(_, operand):
            if not is_field(path):
                return Pushdown.EXACT
            return Pushdown.SUPERSET if any(True for _ in flatten(operand)) else Pushdown.NONE
        case Like(_, text, fold):
            native = patterns.like_regexp(text) if fold else patterns.wildcard(text)
            return Pushdown.EXACT if native is not None or not set(text) & set("%_") else Pushdown.SUPERSET
        case Regex(_, text):
            return Pushdown.EXACT if patterns.regexp(text) is not None else Pushdown.SUPERSET
        case EndsWith(_, text) | Contains(_, text):
            return (
                Pushdown.EXACT if patterns.wildcard_around("*", text, "*") is not None else Pushdown.SUPERSET
            )
        case StartsWith(_, text) | Ordered(_, _, str() as text):
            return Pushdown.EXACT if patterns.truncate(text) == text else Pushdown.SUPERSET
        case Between(_, str() as low, str() as high):
            short = patterns.truncate(low) == low and patterns.truncate(high) == high
            return Pushdown.EXACT if short else Pushdown.SUPERSET
        case Equal() | In() | Ordered() | Between() | Exists():
            return Pushdown.EXACT
        case _:
            assert_never(leaf)


def _pushdown_time(leaf: Leaf) -> Pushdown:
    match leaf:
        case Ordered(_, _, str() as bound):
            return Pushdown.EXACT if is_time(bound) else Pushdown.SUPERSET
        case Between(_, str() as low, str() as high):
            return Pushdown.EXACT if is_time(low) and is_time(high) else Pushdown.SUPERSET
        case Like() | Regex() | StartsWith() | EndsWith() | Contains():
            return Pushdown.SUPERSET
    return Pushdown.EXACT
