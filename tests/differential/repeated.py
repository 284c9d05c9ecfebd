"""Queries of one shape with other operands, which a store binds to a statement that it has compiled."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isthmus._query.shape import is_operand, shape_of, with_operands
from isthmus._record import Record
from isthmus._value import replace
from tests.differential.checks import Check

# One of so many queries is asked again.
_REPEATED = 6
# The second query of a shape is the one that is learned from.
_TIMES = 4
_USUAL: Mapping[type, tuple[Any, ...]] = {
    str: ("a", "Zz", 'q"\\', "100%_", "é" * 100, "\U0001f600"),
    int: (1, -1, 2**31, 2**53 - 1, -(2**53) + 1, 10**15),
    float: (0.5, -0.1, 1e-4, 1e14 + 0.5, 3.141592653589793),
}


def operands_in(records: Sequence[Record]) -> dict[type, list[Any]]:
    """Return values that queries may be asked with: those of the records, and some others."""
    found = {kind: list(values) for kind, values in _USUAL.items()}
    waiting: list[Any] = [record.data for record in records]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif type(value) in found and is_operand(value):
            found[type(value)].append(value)
    return found


def repeats(rng: random.Random, check: Check, operands: Mapping[type, Sequence[Any]]) -> Iterator[Check]:
    """Yield the check with other operands, several times for some of the checks that have a shape.

    A deletion is not repeated: it left other records than those that were loaded.
    """
    shaped = shape_of(check.query.where)
    if rng.randrange(_REPEATED) or shaped is None or not shaped.operands or check.verb == "delete_where":
        return
    for _ in range(_TIMES):
        values = [rng.choice(operands[kind]) for kind in shaped.shape.kinds]
        where = with_operands(check.query.where, iter(values))
        yield dataclasses.replace(check, query=replace(check.query, where=where))
