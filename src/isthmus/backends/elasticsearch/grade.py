"""How well a leaf's query fits its meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from isthmus._path import Root
from isthmus._query.ast import (
    KNN,
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
from isthmus.backends.elasticsearch import pattern
from isthmus.backends.elasticsearch.compile import TIMES, Compiler, flat, stored
from isthmus.backends.elasticsearch.operands import is_time
from isthmus.backends.elasticsearch.vectors import Vectors, nearest


def pushdown(leaf: Leaf, fulltext: Iterable[str], known: Vectors) -> Pushdown:
    """Return how well a leaf's query fits its meaning, the odd records apart."""
    path = leaf.path
    if isinstance(leaf, TextMatch):
        Compiler({}, fulltext).core(leaf)  # refuses a field without full text
        return Pushdown.EXACT
    if isinstance(leaf, KNN):
        nearest(leaf, known, {})  # refuses a field without vectors
        return Pushdown.EXACT
    if path.root in (Root.VERSION, Root.SCORE):
        return Pushdown.NONE
    if path.root is Root.METADATA and not path.keys:
        return Pushdown.EXACT if isinstance(leaf, Exists) else Pushdown.NONE
    if path.root in TIMES:
        return _time_grade(leaf)
    match leaf:
        case Equal(_, dict()):
            return Pushdown.SUPERSET if stored(path) else Pushdown.EXACT
        case EqualList(_, operand):
            if not stored(path):
                return Pushdown.EXACT
            return Pushdown.SUPERSET if any(True for _ in flat(operand)) else Pushdown.NONE
        case Like(_, text, fold):
            said = pattern.folded_regexp(text) if fold else pattern.wildcard(text)
            return Pushdown.EXACT if said is not None or not set(text) & set("%_") else Pushdown.SUPERSET
        case Regex(_, text):
            return Pushdown.EXACT if pattern.regexp(text) is not None else Pushdown.SUPERSET
        case EndsWith(_, text) | Contains(_, text):
            return Pushdown.EXACT if pattern.around("*", text, "*") is not None else Pushdown.SUPERSET
        case StartsWith(_, text) | Ordered(_, _, str() as text):
            return Pushdown.EXACT if pattern.cut(text) == text else Pushdown.SUPERSET
        case Between(_, str() as low, str() as high):
            short = pattern.cut(low) == low and pattern.cut(high) == high
            return Pushdown.EXACT if short else Pushdown.SUPERSET
        case Equal() | In() | Ordered() | Between() | Exists():
            return Pushdown.EXACT
        case _:
            assert_never(leaf)


def _time_grade(leaf: Leaf) -> Pushdown:
    match leaf:
        case Ordered(_, _, str() as bound):
            return Pushdown.EXACT if is_time(bound) else Pushdown.SUPERSET
        case Between(_, str() as low, str() as high):
            return Pushdown.EXACT if is_time(low) and is_time(high) else Pushdown.SUPERSET
        case Like() | Regex() | StartsWith() | EndsWith() | Contains():
            return Pushdown.SUPERSET
    return Pushdown.EXACT
