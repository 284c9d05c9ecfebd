"""What can be told of a record by its bytes, before it is parsed: a safe superset.

A text that a record holds is in its JSON as the bytes that `orjson` gives it, unless another
writer spelled it with `\\u` or `\\/`; a body with one of those passes every filter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import orjson

from isthmus._path import Root
from isthmus._query.ast import (
    And,
    Contains,
    EndsWith,
    Equal,
    In,
    Leaf,
    Like,
    Not,
    Or,
    Predicate,
    StartsWith,
    leaves,
)
from isthmus._query.split import Grade

Filter: TypeAlias = Callable[[bytes], bool]


def grade(leaf: Leaf) -> Grade:
    """Return SUPERSET for leaves about text that must be there letter by letter, else NONE."""
    return Grade.NONE if needles(leaf) is None else Grade.SUPERSET


def needles(leaf: Leaf) -> list[list[bytes]] | None:
    """Return byte strings of which one whole list must be in a matching record; None if nothing is known."""
    match leaf:
        case Equal(_, str(text)):
            return [[orjson.dumps(text)]]
        case In(_, values) if values and all(isinstance(value, str) for value in values):
            return [[orjson.dumps(value)] for value in values]
        case StartsWith(_, text):
            return [[orjson.dumps(text)[:-1]]]
        case EndsWith(_, text):
            return [[orjson.dumps(text)[1:]]]
        case Contains(_, text) if text:
            return [[orjson.dumps(text)[1:-1]]]
        case Like(_, pattern, False):
            parts = [orjson.dumps(part)[1:-1] for part in _literals(pattern)]
            return [parts] if parts else None
        case _:
            return None


_like_token = re.compile(r"\\(.)|([%_])|(.)", re.DOTALL)


def _literals(pattern: str) -> list[str]:
    """Return the runs of plain characters in a like pattern."""
    runs = [""]
    for escaped, wild, plain in _like_token.findall(pattern):
        if wild:
            runs.append("")
        else:
            runs[-1] += escaped or plain
    return [run for run in runs if run]


def compiled(predicate: Predicate) -> Filter | None:
    """Return the test of a pushed predicate on a body; None if every body passes."""
    if isinstance(predicate, And) and not predicate.terms:
        return None
    test = _compiled(predicate)
    return lambda body: test(body) or b"\\u" in body or b"\\/" in body


def of_data_only(predicate: Predicate) -> bool:
    """Return whether a predicate is about the data alone, not about metadata or attributes."""
    return all(leaf.path.root is Root.DATA for leaf in leaves(predicate) if not isinstance(leaf, And | Or))


def _compiled(predicate: Predicate) -> Filter:
    match predicate:
        case And(terms):
            tests = [_compiled(term) for term in terms]
            return lambda body: all(test(body) for test in tests)
        case Or(terms):
            tests = [_compiled(term) for term in terms]
            return lambda body: any(test(body) for test in tests)
        case Not():
            # The core pushes nothing that is not exact below a Not; to pass is always safe.
            return lambda body: True
        case leaf:
            wanted = needles(leaf)
            if wanted is None:
                return lambda body: True
            if len(wanted) == 1 and len(wanted[0]) == 1:
                needle = wanted[0][0]
                return lambda body: needle in body
            return lambda body: any(all(part in body for part in parts) for parts in wanted)
