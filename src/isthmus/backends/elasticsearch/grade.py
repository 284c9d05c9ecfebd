"""How well a leaf's query fits its meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from isthmus._path import Root
from isthmus._query.ast import (
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
    Exists,
    In,
    Leaf,
    Like,
    Matches,
    Nearest,
    Ordered,
    Regex,
    StartsWith,
)
from isthmus._query.split import Grade
from isthmus.backends.elasticsearch import pattern
from isthmus.backends.elasticsearch.compile import TIMES, Compiler, flat, stored
from isthmus.backends.elasticsearch.operands import is_time
from isthmus.backends.elasticsearch.vectors import Vectors, nearest


def grade(leaf: Leaf, fulltext: Iterable[str], known: Vectors) -> Grade:
    """Return how well a leaf's query fits its meaning, the odd records apart."""
    path = leaf.path
    if isinstance(leaf, Matches):
        Compiler({}, fulltext).core(leaf)  # refuses a field without full text
        return Grade.EXACT
    if isinstance(leaf, Nearest):
        nearest(leaf, known, {})  # refuses a field without vectors
        return Grade.EXACT
    if path.root in (Root.VERSION, Root.SCORE):
        return Grade.NONE
    if path.root is Root.METADATA and not path.keys:
        return Grade.EXACT if isinstance(leaf, Exists) else Grade.NONE
    if path.root in TIMES:
        return _time_grade(leaf)
    match leaf:
        case Equal(_, dict()):
            return Grade.SUPERSET if stored(path) else Grade.EXACT
        case EqualList(_, operand):
            if not stored(path):
                return Grade.EXACT
            return Grade.SUPERSET if any(True for _ in flat(operand)) else Grade.NONE
        case Like(_, text, fold):
            said = pattern.folded_regexp(text) if fold else pattern.wildcard(text)
            return Grade.EXACT if said is not None or not set(text) & set("%_") else Grade.SUPERSET
        case Regex(_, text):
            return Grade.EXACT if pattern.regexp(text) is not None else Grade.SUPERSET
        case EndsWith(_, text) | Contains(_, text):
            return Grade.EXACT if pattern.around("*", text, "*") is not None else Grade.SUPERSET
        case StartsWith(_, text) | Ordered(_, _, str() as text):
            return Grade.EXACT if pattern.cut(text) == text else Grade.SUPERSET
        case Between(_, str() as low, str() as high):
            short = pattern.cut(low) == low and pattern.cut(high) == high
            return Grade.EXACT if short else Grade.SUPERSET
        case Equal() | In() | Ordered() | Between() | Exists():
            return Grade.EXACT
        case _:
            assert_never(leaf)


def _time_grade(leaf: Leaf) -> Grade:
    match leaf:
        case Ordered(_, _, str() as bound):
            return Grade.EXACT if is_time(bound) else Grade.SUPERSET
        case Between(_, str() as low, str() as high):
            return Grade.EXACT if is_time(low) and is_time(high) else Grade.SUPERSET
        case Like() | Regex() | StartsWith() | EndsWith() | Contains():
            return Grade.SUPERSET
    return Grade.EXACT
