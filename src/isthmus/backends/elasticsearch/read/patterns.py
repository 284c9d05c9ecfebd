"""Translates LIKE patterns and Python regexes to Lucene patterns of the same meaning."""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any, Literal

from isthmus._query.text import ANY_ONE, ANY_RUN, Wild, fold, fold_groups, parse_like
from isthmus.backends.elasticsearch.layout import LONGEST_REGEXP

# The parser is private, but its tree has been the same since 3.5; 3.11 moved it into this package.
_sre: Any = importlib.import_module("re._parser")
# A compiled pattern has a state for each byte, and Lucene accepts no more than 1,000 (8.19).
_LONGEST_WILDCARD = 900
# The work for a pattern that may start anywhere is quadratic in the length of a repetition: at most
# 314 equal characters after a run are accepted (9.2).
_LONGEST_FREE = 250
_LONGEST_FREE_WIDE = 50
_MAX_RUNS = 20
_LONGEST_READ = 4 * LONGEST_REGEXP
"""A longer pattern hardly becomes a short one, and reading it takes the event loop's time."""
_MAX_REPEAT = 100
# After a free start, states double with each wide class.
_MAX_WIDE = 8


def wildcard(pattern: str) -> str | None:
    """Return a LIKE pattern as a Lucene wildcard pattern; None if the server might reject it."""
    parts = parse_like(pattern)
    if _explodes(parts):
        return None
    text = "".join(
        "*" if part is ANY_RUN else "?" if part is ANY_ONE else escape_wildcard(part)  # type: ignore[arg-type]
        for part in parts
    )
    return text if len(text.encode()) <= _LONGEST_WILDCARD else None


def _explodes(parts: tuple[str | Wild, ...]) -> bool:
    """Return whether a deterministic automaton for the pattern may exceed the server's limit."""
    runs = sum(part is ANY_RUN for part in parts)
    ones = sum(part is ANY_ONE for part in parts)
    length = ones + sum(len(part) for part in parts if isinstance(part, str))
    if not runs:
        return False
    return runs > _MAX_RUNS or ones > _MAX_WIDE or length > (_LONGEST_FREE_WIDE if ones else _LONGEST_FREE)


def escape_wildcard(text: str) -> str:
    """Return text for a literal part of a wildcard pattern."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")


def truncate(text: str) -> str:
    """Return the start of a text that a range or prefix accepts; the text itself if it is short."""
    return text if len(text.encode()) <= _LONGEST_WILDCARD else text[: _LONGEST_WILDCARD // 4]


def wildcard_around(before: str, text: str, after: str) -> str | None:
    """Return a wildcard pattern with a literal text between `before` and `after`; None if it is too long."""
    pattern = before + escape_wildcard(text) + after
    short = len(text) <= _LONGEST_FREE and len(pattern.encode()) <= _LONGEST_WILDCARD
    return pattern if short else None


def like_regexp(pattern: str) -> str | None:
    """Return a case-insensitive LIKE pattern as a Lucene regexp; None if the server might reject it."""
    parts = parse_like(pattern)
    if _explodes(parts) or len(pattern) > _LONGEST_FREE:
        return None
    out = []
    for part in parts:
        if part is ANY_RUN:
            out.append(".*")
        elif part is ANY_ONE:
            out.append(".")
        else:
            assert isinstance(part, str)
            for c in fold(part):
                forms = fold_groups().get(c, c)
                # Only letters have several forms, and none is special in a class.
                out.append(_literal(forms) if len(forms) == 1 else f"[{forms}]")
    text = "".join(out) or "()"
    return text if len(text) <= LONGEST_REGEXP else None


def _literal(c: str) -> str:
    return c if c.isalnum() else "\\" + c


# Characters that are special in a Lucene character class.
_SPECIAL = frozenset('\\[]^-&~"')


@functools.lru_cache(maxsize=512)
def regexp(pattern: str) -> str | None:
    """Return a Lucene regexp with the matches of `re.search`; None if there is no exact one."""
    if len(pattern) > _LONGEST_READ:
        return None
    try:
        tree = _sre.parse(pattern)
    except (re.error, RecursionError, OverflowError):
        return None
    if tree.state.flags & ~re.UNICODE.value:
        return None
    items = list(tree)
    start = bool(items) and _is_at(items[0], _sre.AT_BEGINNING, _sre.AT_BEGINNING_STRING)
    if start:
        items = items[1:]
    end = bool(items) and _is_at(items[-1], _sre.AT_END_STRING)
    line_end = bool(items) and _is_at(items[-1], _sre.AT_END)
    if end or line_end:
        items = items[:-1]
    try:
        body = _sequence(items)
    except _Beyond:
        return None
    text = ("" if start else ".*") + body
    if line_end:  # `$` also matches before a final line break
        text += "(\n)?"
    elif not end:
        text += ".*"
    states, wide = _size(items)
    maximum = _LONGEST_FREE_WIDE if wide else _LONGEST_FREE
    if len(text) > LONGEST_REGEXP or states > maximum or wide > _MAX_WIDE:
        return None
    return text or "()"


class _Beyond(Exception):
    """This part has no equivalent in Lucene's regexps."""


def _is_at(item: tuple[Any, Any], *codes: Any) -> bool:
    return item[0] is _sre.AT and item[1] in codes


def _sequence(items: list[tuple[Any, Any]]) -> str:
    return "".join(_item(op, argument) for op, argument in items)


def _item(op: Any, argument: Any) -> str:
    if op is _sre.LITERAL:
        return _literal(chr(argument))
    if op is _sre.NOT_LITERAL:
        return f"[^{_literal(chr(argument))}]"
    if op is _sre.ANY:
        return "[^\n]"
    if op is _sre.IN:
        return _class(argument)
    if op is _sre.BRANCH:
        return "(" + "|".join(f"({_sequence(list(branch))})" for branch in argument[1]) + ")"
    if op is _sre.SUBPATTERN:
        _, add, remove, inner = argument
        if add or remove:
            raise _Beyond
        return f"({_sequence(list(inner))})"
    if op is _sre.MAX_REPEAT or op is _sre.MIN_REPEAT:
        return _repeat(*argument)
    raise _Beyond


def _repeat(minimum: int, maximum: Any, inner: Any) -> str:
    body = f"({_sequence(list(inner))})"
    if body == "()":
        return ""
    if maximum is _sre.MAXREPEAT:
        if minimum > _MAX_REPEAT:
            raise _Beyond
        return body + ("*" if minimum == 0 else "+" if minimum == 1 else f"{{{minimum},}}")
    if maximum > _MAX_REPEAT:
        raise _Beyond
    if maximum == 0:
        return ""
    return body + ("?" if (minimum, maximum) == (0, 1) else f"{{{minimum},{maximum}}}")


def _class(members: list[tuple[Any, Any]]) -> str:
    negated = bool(members) and members[0][0] is _sre.NEGATE
    parts = []
    for op, argument in members[1:] if negated else members:
        if op is _sre.LITERAL:
            parts.append(_literal(chr(argument)))
        elif op is _sre.RANGE:
            parts.append(_range(*argument))
        elif op is _sre.CATEGORY:
            parts.append(_category(argument))
        else:
            raise _Beyond
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _category(code: Any) -> str:
    # \w and the negated classes have hundreds of ranges in Unicode; only these two are spelled out.
    if code is _sre.CATEGORY_DIGIT:
        return _digits()
    if code is _sre.CATEGORY_SPACE:
        return _spaces()
    raise _Beyond


@functools.cache
def _digits() -> str:
    return _class_ranges("digit")


@functools.cache
def _spaces() -> str:
    return _class_ranges("space")


def _class_ranges(name: Literal["digit", "space"]) -> str:
    # The tables of characters are loaded by the first regex, not at import.
    from isthmus._query.regex.charset import character_class

    return "".join(_range(low, high) for low, high in character_class(name, ascii=False))


def _range(first: int, last: int) -> str:
    """Return the members of a class for a range of characters.

    Lucene 10 reads a range with an escaped end as its two ends alone, so a character that must be
    escaped is a member of its own.
    """
    low, high = "", ""
    while first < last and chr(first) in _SPECIAL:
        low, first = low + _literal(chr(first)), first + 1
    while first < last and chr(last) in _SPECIAL:
        high, last = high + _literal(chr(last)), last - 1
    if first == last:
        return f"{low}{_literal(chr(first))}{high}"
    return f"{low}{chr(first)}-{chr(last)}{high}"


def _size(items: Any) -> tuple[int, int]:
    """Return a bound on the states, and the number of wide classes; both with repeats multiplied out."""
    states = wide = 0
    for op, argument in items:
        times, inner = 1, None
        if op is _sre.BRANCH:
            sizes = [_size(branch) for branch in argument[1]]
            states += sum(size for size, _ in sizes)
            wide += sum(width for _, width in sizes)
            continue
        if op is _sre.SUBPATTERN:
            inner = argument[3]
        elif op is _sre.MAX_REPEAT or op is _sre.MIN_REPEAT:
            minimum, maximum, inner = argument
            times = int(minimum) + 1 if maximum is _sre.MAXREPEAT else max(1, int(maximum))
            if maximum is _sre.MAXREPEAT and minimum < 2:
                states += 2 * _size(inner)[0]
                continue
        if inner is None:
            states += len(chr(argument).encode()) if op is _sre.LITERAL else 1
            wide += op in (_sre.ANY, _sre.NOT_LITERAL, _sre.IN)
        else:
            size, width = _size(inner)
            states += times * size
            wide += times * width
    return states, wide
