"""Filters records by id and by the bytes of their JSON, before it is parsed.

Leaves about the id are exact (`id_filter`). For text, a record that matches has the operand in its
JSON as the bytes that `orjson` writes, unless another writer spelled it with `\\u` or `\\/`; a
body with one of these passes every filter. So no match is missed, and some others pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import orjson

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
from isthmus._query.split import Pushdown
from isthmus.backends.s3.column_values import compile_value_test
from isthmus.backends.s3.id_filter import compile_id_test, is_id_leaf

ByteFilter: TypeAlias = Callable[[str, bytes], bool]
_MOST_SEARCHED = 10_000_000
"""Searches times bytes of a body, some 5 to 10 ms at worst, above which a body passes without a search."""
_MOST_VALUES = 2_000
"""The values of an `in` above which looking for them takes as long as reading the bodies."""


def pushdown(leaf: Leaf) -> Pushdown:
    """Return EXACT for leaves about ids, SUPERSET where the JSON must contain certain bytes, else NONE."""
    if is_id_leaf(leaf):
        return Pushdown.EXACT
    return Pushdown.NONE if needles(leaf) is None else Pushdown.SUPERSET


def needles(leaf: Leaf) -> list[list[bytes]] | None:
    """Return lists of byte strings; a match contains all strings of one list. None if nothing is known."""
    match leaf:
        case Equal(_, str(text)):
            return [[orjson.dumps(text)]]
        case In(_, values) if len(values) <= _MOST_VALUES and set(map(type, values)) == {str}:
            return [[orjson.dumps(value)] for value in values]
        case StartsWith(_, text):
            return [[orjson.dumps(text)[:-1]]]
        case EndsWith(_, text):
            return [[orjson.dumps(text)[1:]]]
        case Contains(_, text) if text:
            return [[orjson.dumps(text)[1:-1]]]
        case Like(_, pattern, False):
            parts = [orjson.dumps(part)[1:-1] for part in _plain_runs(pattern)]
            return [parts] if parts else None
        case _:
            return None


_like_token = re.compile(r"\\(.)|([%_])|(.)", re.DOTALL)


def _plain_runs(pattern: str) -> list[str]:
    """Return the runs of plain characters in a like pattern."""
    runs = [""]
    for escaped, wild, plain in _like_token.findall(pattern):
        if wild:
            runs.append("")
        else:
            runs[-1] += escaped or plain
    return [run for run in runs if run]


def compile_filter(predicate: Predicate) -> ByteFilter | None:
    """Return the test of a predicate on an id and a body; None if every record passes."""
    if isinstance(predicate, And) and not predicate.terms:
        return None
    searches = sum(len(leaf.values) if isinstance(leaf, In) else 3 for leaf in leaves(predicate))
    return _compile(predicate, _MOST_SEARCHED // max(1, searches))


def _compile(predicate: Predicate, longest: int) -> ByteFilter:
    match predicate:
        case And(terms):
            tests = [_compile(term, longest) for term in terms]
            return lambda one, body: all(test(one, body) for test in tests)
        case Or(terms):
            tests = [_compile(term, longest) for term in terms]
            return lambda one, body: any(test(one, body) for test in tests)
        case Not():
            # The core pushes only exact leaves below a Not: those about ids.
            test = compile_id_test(predicate)
            return lambda one, body: test(one)
        case leaf if is_id_leaf(leaf):
            exact = compile_value_test(leaf)
            return lambda one, body: exact(one)
        case leaf:
            return _by_bytes(leaf, longest)


def _by_bytes(leaf: Leaf, longest: int) -> ByteFilter:
    """Return the test of a leaf, which bodies of more than `longest` bytes pass."""
    wanted = needles(leaf)
    if wanted is None:
        return lambda one, body: True
    if len(wanted) == 1 and len(wanted[0]) == 1:
        needle = wanted[0][0]
        return lambda one, body: len(body) > longest or needle in body or _has_escapes(body)
    return lambda one, body: (
        len(body) > longest
        or any(all(part in body for part in parts) for parts in wanted)
        or _has_escapes(body)
    )


def _has_escapes(body: bytes) -> bool:
    return b"\\u" in body or b"\\/" in body
