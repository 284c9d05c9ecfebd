"""What can be told of a row by its text alone: a superset, for the first search that asks for a path.

A column needs every row decoded; of rows that are looked at once, most can be passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import orjson

from isthmus._path import Root
from isthmus._query.ast import And, Equal, Not, Or, Predicate
from isthmus.backends.s3.prefilter import compiled, needles

Sieve: TypeAlias = Callable[[bytes], bool]


def sieve_of(predicate: Predicate) -> Sieve | None:
    """Return a test of a row's data that no match fails; None if nothing is known."""
    match predicate:
        case And(terms):
            return next((sieve for term in terms if (sieve := sieve_of(term)) is not None), None)
        case Or() | Not():
            return None
        case leaf if leaf.path.root is not Root.DATA:
            return None
        case Equal(_, int(number)) if not isinstance(number, bool):
            return _integer(predicate.path.keys[-1], number)
        case leaf if needles(leaf) is not None:
            filter = compiled(leaf)
            return None if filter is None else lambda data: filter("", data)
    return None


def _integer(key: str, number: int) -> Sieve:
    """Return the test for a key before an integer, a number that may equal it, or a list."""
    name = re.escape(orjson.dumps(key))
    found = re.compile(rb"%b\s*:\s*(?:%b|-0|-?\d+[.eE]|\[)" % (name, str(number).encode())).search
    # A key may be spelled otherwise only with a backslash.
    return lambda data: found(data) is not None or b"\\" in data
