"""Sets of characters as ranges of code points: union, complement, classes and case."""

from __future__ import annotations

import bisect
import functools
import sys
from collections.abc import Iterable
from typing import Literal, TypeAlias

from isthmus._query import unicode_tables

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Inclusive ranges of code points, ascending, neither overlapping nor touching."""

EVERYTHING: Ranges = ((0, sys.maxunicode),)
_ASCII_CLASSES: dict[str, Ranges] = {
    "digit": ((48, 57),),
    "space": ((9, 13), (32, 32)),
    "word": ((48, 57), (65, 90), (95, 95), (97, 122)),
}


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the set of all characters in any of the ranges."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def complement(ranges: Ranges) -> Ranges:
    """Return the set of all characters that are not in the set."""
    gaps: list[tuple[int, int]] = []
    start = 0
    for low, high in ranges:
        if start < low:
            gaps.append((start, low - 1))
        start = high + 1
    if start <= sys.maxunicode:
        gaps.append((start, sys.maxunicode))
    return tuple(gaps)


def contains(ranges: Ranges, code: int) -> bool:
    """Return whether the character with this code point is in the set."""
    index = bisect.bisect_right(ranges, (code, sys.maxunicode))
    return index > 0 and ranges[index - 1][1] >= code


@functools.cache
def character_class(name: Literal["digit", "space", "word"], *, ascii: bool) -> Ranges:
    r"""Return the characters of `\d`, `\s` or `\w`."""
    if ascii:
        return _ASCII_CLASSES[name]
    tables = {
        "digit": unicode_tables.DIGITS,
        "space": unicode_tables.SPACES,
        "word": unicode_tables.WORDS,
    }
    return unicode_tables.ranges(tables[name])


def ignore_case(ranges: Ranges, *, ascii: bool) -> Ranges:
    """Return the set with the other cases of its characters, as `re.IGNORECASE` defines them."""
    if ascii:
        folded = list(ranges)
        for low, high in ranges:
            folded += _shift(low, high, "A", "Z", 32)
            folded += _shift(low, high, "a", "z", -32)
        return union(folded)
    codes, groups = _cases()
    others = [
        (code, code)
        for low, high in ranges
        for group in groups[bisect.bisect_left(codes, low) : bisect.bisect_right(codes, high)]
        for code in group
        if not low <= code <= high
    ]
    return union((*ranges, *others)) if others else ranges


def count_cased(ranges: Ranges) -> int:
    """Return how many characters of the set have another case: the work that `ignore_case` takes."""
    codes, _ = _cases()
    return sum(bisect.bisect_right(codes, high) - bisect.bisect_left(codes, low) for low, high in ranges)


def _shift(low: int, high: int, first: str, last: str, by: int) -> list[tuple[int, int]]:
    low, high = max(low, ord(first)), min(high, ord(last))
    return [(low + by, high + by)] if low <= high else []


@functools.cache
def _cases() -> tuple[list[int], list[tuple[int, ...]]]:
    """Return the characters that have several cases, ascending, and the group of each."""
    found: dict[int, tuple[int, ...]] = {}
    for item in unicode_tables.CASES.split():
        group = tuple(int(code, 16) for code in item.split(","))
        for code in group:
            found[code] = group
    codes = sorted(found)
    return codes, [found[code] for code in codes]
