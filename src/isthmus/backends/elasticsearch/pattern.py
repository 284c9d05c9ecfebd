"""LIKE patterns and Python regexes as Lucene patterns, where those mean the same."""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

from isthmus._query.text import ANY_ONE, ANY_RUN, Wild, fold, fold_character, parse_like

# The parser is private, but its tree has been the same since 3.5; 3.11 moved it into this package.
_sre: Any = importlib.import_module("re._parser")
# A compiled pattern has a state for each byte, and Lucene takes no more than 1,000 (8.19).
_LONGEST_WILDCARD = 900
# A pattern that begins anywhere takes work by the square of what repeats itself: 314 equal
# characters after a run are the most (9.2).
_LONGEST_FREE = 250
_LONGEST_FREE_WIDE = 50
# What `index.max_regex_length` of our indices allows.
LONGEST_REGEXP = 9_000
# No character from U+20000 on has a case, is a digit or is white space.
_LAST = 0x1FFFF
_MOST_RUNS = 20
_MAX_REPEAT = 100
# A free start followed by wide classes needs two to the power of their number of states.
_MOST_WIDE = 8


def wildcard(pattern: str) -> str | None:
    """Return a LIKE pattern as a Lucene wildcard pattern, None if it is beyond what is surely taken."""
    parts = parse_like(pattern)
    if _explodes(parts):
        return None
    text = "".join(
        "*" if part is ANY_RUN else "?" if part is ANY_ONE else escaped_wildcard(part)  # type: ignore[arg-type]
        for part in parts
    )
    return text if len(text.encode()) <= _LONGEST_WILDCARD else None


def _explodes(parts: tuple[str | Wild, ...]) -> bool:
    """Return whether a deterministic automaton for the pattern may be beyond the server's limit."""
    runs = sum(part is ANY_RUN for part in parts)
    ones = sum(part is ANY_ONE for part in parts)
    length = ones + sum(len(part) for part in parts if isinstance(part, str))
    if not runs:
        return False
    return runs > _MOST_RUNS or ones > _MOST_WIDE or length > (_LONGEST_FREE_WIDE if ones else _LONGEST_FREE)


def escaped_wildcard(text: str) -> str:
    """Return text that a wildcard pattern takes literally."""
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")


def cut(text: str) -> str:
    """Return the beginning of a text that a range or prefix takes; the text itself if it is short."""
    return text if len(text.encode()) <= _LONGEST_WILDCARD else text[: _LONGEST_WILDCARD // 4]


def around(before: str, text: str, after: str) -> str | None:
    """Return a wildcard pattern for text between others, None if it is too long."""
    pattern = before + escaped_wildcard(text) + after
    short = len(text) <= _LONGEST_FREE and len(pattern.encode()) <= _LONGEST_WILDCARD
    return pattern if short else None


def folded_regexp(pattern: str) -> str | None:
    """Return a LIKE pattern that folds case as a Lucene regexp of character classes."""
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
                forms = _unfolded().get(c, c)
                # Only letters have several forms, and none means anything in a class.
                out.append(_literal(forms) if len(forms) == 1 else f"[{forms}]")
    text = "".join(out) or "()"
    return text if len(text) <= LONGEST_REGEXP else None


@functools.cache
def _unfolded() -> dict[str, str]:
    """Return the characters that fold to each."""
    forms: dict[str, list[str]] = {}
    for code in range(_LAST + 1):
        c = chr(code)
        folded = fold_character(c)
        if folded != c:
            forms.setdefault(folded, []).append(c)
    return {folded: "".join([folded, *others]) for folded, others in forms.items()}


def _literal(c: str) -> str:
    return c if c.isalnum() else "\\" + c


# What means something in a class of Lucene's.
_SPECIAL = frozenset('\\[]^-&~"')


def regexp(pattern: str) -> str | None:
    """Return a Lucene regexp for what `re.search` finds, None if it cannot be said exactly."""
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
    if line_end:  # `$` also stands before a last line break
        text += "(\n)?"
    elif not end:
        text += ".*"
    states, wide = _size(items)
    most = _LONGEST_FREE_WIDE if wide else _LONGEST_FREE
    if len(text) > LONGEST_REGEXP or states > most or wide > _MOST_WIDE:
        return None
    return text or "()"


class _Beyond(Exception):
    """This part has no equal in Lucene's regexps."""


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


def _repeat(least: int, most: Any, inner: Any) -> str:
    body = f"({_sequence(list(inner))})"
    if body == "()":
        return ""
    if most is _sre.MAXREPEAT:
        if least > _MAX_REPEAT:
            raise _Beyond
        return body + ("*" if least == 0 else "+" if least == 1 else f"{{{least},}}")
    if most > _MAX_REPEAT:
        raise _Beyond
    if most == 0:
        return ""
    return body + ("?" if (least, most) == (0, 1) else f"{{{least},{most}}}")


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
    # \w and the negated ones have hundreds of ranges in Unicode; these few are spelled out.
    if code is _sre.CATEGORY_DIGIT:
        return _digits()
    if code is _sre.CATEGORY_SPACE:
        return _spaces()
    raise _Beyond


@functools.cache
def _digits() -> str:
    return _ranges([c for c in range(_LAST + 1) if chr(c).isdecimal()])


@functools.cache
def _spaces() -> str:
    return _ranges([c for c in range(_LAST + 1) if chr(c).isspace()])


def _ranges(codes: list[int]) -> str:
    out = []
    at = 0
    while at < len(codes):
        start = codes[at]
        while at + 1 < len(codes) and codes[at + 1] == codes[at] + 1:
            at += 1
        out.append(_range(start, codes[at]))
        at += 1
    return "".join(out)


def _range(first: int, last: int) -> str:
    """Return what a class holds for a range of characters.

    Lucene 10 takes a range with an escaped end for its two ends alone, so that a character which
    must be escaped stands beside the range.
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
    """Return a bound on states, and how many wide classes in bounded numbers, repeats multiplied out."""
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
            least, most, inner = argument
            times = int(least) + 1 if most is _sre.MAXREPEAT else max(1, int(most))
            if most is _sre.MAXREPEAT and least < 2:
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
