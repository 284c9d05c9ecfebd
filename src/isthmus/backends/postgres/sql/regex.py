"""Translates Python's regular expressions to PostgreSQL's, where one with the same matches exists.

Python's own parser reads the pattern. The parse tree is written with code points in place of
characters, so nothing of the pattern's spelling reaches the server.
"""

from __future__ import annotations

import functools
import re
import re._constants as sre  # type: ignore[import-not-found]  # typeshed has no stubs for it
import re._parser as parser  # type: ignore[import-not-found]
import sys
from typing import Any

from isthmus.backends.postgres.sql.like import escape

_MAX_REPEAT = 255
_MAX_COPIES = 1_000
"""Bounded repeats are copies inside the server's automaton; nested ones multiply."""
_MAX_LENGTH = 50_000


class _UntranslatableError(Exception):
    """The pattern has a part without an exact counterpart."""


@functools.lru_cache(maxsize=512)
def translate(pattern: str) -> str | None:
    """Return an advanced regular expression that matches wherever `re.search` does; None if there is none."""
    tree = parser.parse(pattern)
    if tree.state.flags & ~re.UNICODE:
        return None
    try:
        text = _sequence(tree.data, 1)
    except (_UntranslatableError, RecursionError):
        return None
    return text if len(text) <= _MAX_LENGTH else None


def _sequence(items: Any, copies: int) -> str:
    return "".join(_item(op, argument, copies) for op, argument in items)


def _item(op: Any, argument: Any, copies: int) -> str:
    if op is sre.LITERAL:
        return _literal(argument)
    if op is sre.NOT_LITERAL:
        return f"[^{_literal(argument)}]"
    if op is sre.ANY:
        return "[^\\u000a]"
    if op is sre.IN:
        return _set(argument)
    if op is sre.BRANCH:
        return "(?:" + "|".join(_sequence(branch, copies) for branch in argument[1]) + ")"
    if op is sre.SUBPATTERN:
        _, add_flags, del_flags, inner = argument
        if add_flags or del_flags:
            raise _UntranslatableError
        return f"(?:{_sequence(inner, copies)})"
    if op is sre.MAX_REPEAT or op is sre.MIN_REPEAT:
        # Greedy or not decides how much is matched, not whether.
        return _repeat(copies, *argument)
    if op is sre.AT:
        return _anchor(argument)
    raise _UntranslatableError


def _literal(number: int) -> str:
    if number == 0 or 0xD800 <= number <= 0xDFFF:
        raise _UntranslatableError  # in no stored text, and the server refuses the escape
    return escape(chr(number))


def _repeat(copies: int, low: int, high: Any, inner: Any) -> str:
    unbounded = high is sre.MAXREPEAT
    most = max(low, 1) if unbounded else int(high)
    if most > _MAX_REPEAT or copies * max(most, 1) > _MAX_COPIES or _has_anchor(inner):
        raise _UntranslatableError
    text = _sequence(inner, copies * max(most, 1))
    if unbounded and low <= 1:
        return f"(?:{text}){'+' if low else '*'}"
    return f"(?:{text}){{{low},{'' if unbounded else most}}}"


def _has_anchor(items: Any) -> bool:
    """Return whether there is an anchor inside, which the server does not repeat."""
    if isinstance(items, parser.SubPattern | list | tuple):
        return any(map(_has_anchor, items))
    return items is sre.AT


def _anchor(argument: Any) -> str:
    if argument is sre.AT_BEGINNING or argument is sre.AT_BEGINNING_STRING:
        return "\\A"
    if argument is sre.AT_END:
        return "(?=\\u000a?\\Z)"
    if argument is sre.AT_END_STRING:
        return "\\Z"
    raise _UntranslatableError


def _set(items: Any) -> str:
    negated = False
    ranges: list[tuple[int, int]] = []
    for op, argument in items:
        if op is sre.NEGATE:
            negated = True
        elif op is sre.LITERAL:
            ranges.append((argument, argument))
        elif op is sre.RANGE:
            ranges.append(argument)
        elif op is sre.CATEGORY:
            ranges.extend(_category(argument))
        else:
            raise _UntranslatableError
    merged = _merge_ranges(ranges)
    if negated:
        merged = _complement(merged)
    parts = "".join(
        escape(chr(low)) if low == high else f"{escape(chr(low))}-{escape(chr(high))}" for low, high in merged
    )
    if not parts:
        raise _UntranslatableError
    return f"[{parts}]"


def _merge_ranges(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges in order, without overlaps, without U+0000 and surrogates."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        low = max(start, 1)
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif low <= end:
            merged.append((low, end))
    clipped: list[tuple[int, int]] = []
    for low, high in merged:
        parts = ((low, min(high, 0xD7FF)), (max(low, 0xE000), high))
        clipped.extend(part for part in parts if part[0] <= part[1])
    return clipped


def _complement(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    gaps: list[tuple[int, int]] = []
    start = 1
    for low, high in ranges:
        if start < low:
            gaps.append((start, low - 1))
        start = high + 1
    if start <= sys.maxunicode:
        gaps.append((start, sys.maxunicode))
    return _merge_ranges(gaps)


@functools.cache
def _category(category: Any) -> list[tuple[int, int]]:
    """Return the code points of `\\d`, `\\s`, `\\w` or of a complement, as Python sees them."""
    positive = {
        sre.CATEGORY_DIGIT: (r"\d", False),
        sre.CATEGORY_NOT_DIGIT: (r"\d", True),
        sre.CATEGORY_SPACE: (r"\s", False),
        sre.CATEGORY_NOT_SPACE: (r"\s", True),
        sre.CATEGORY_WORD: (r"\w", False),
        sre.CATEGORY_NOT_WORD: (r"\w", True),
    }
    if category not in positive:
        raise _UntranslatableError
    source, complement = positive[category]
    everything = "".join(chr(n) for n in range(1, sys.maxunicode + 1) if not 0xD800 <= n <= 0xDFFF)
    ranges = [(ord(m[0][0]), ord(m[0][-1])) for m in re.finditer(f"{source}+", everything)]
    # A run may cross the surrogates, which `everything` lacks; _merge_ranges cuts them out again.
    ranges = _merge_ranges(ranges)
    return _complement(ranges) if complement else ranges
