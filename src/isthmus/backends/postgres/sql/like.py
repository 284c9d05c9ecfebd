"""Translates text patterns to PostgreSQL's `LIKE` and regular expressions."""

from __future__ import annotations

import sys

from isthmus._query.ast import Contains, EndsWith, Leaf, Like
from isthmus._query.text import ANY_ONE, ANY_RUN, Wild, fold_character, fold_groups, parse_like

_MAX_FOLDED = 2_000
"""A folded pattern has a class for each character; longer ones are evaluated client-side."""


def like_pattern(pattern: str) -> str:
    """Return the pattern for `LIKE` with the standard escape; a lone final backslash is made literal."""
    return "".join(
        _wildcard(part) if isinstance(part, Wild) else like_literal(part) for part in parse_like(pattern)
    )


def like_literal(text: str) -> str:
    """Return text with `LIKE`'s special characters escaped."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _wildcard(part: Wild) -> str:
    return "%" if part is ANY_RUN else "_"


def like_prefix(pattern: str) -> str:
    """Return the literal text that every match begins with."""
    parts = parse_like(pattern)
    return parts[0] if parts and isinstance(parts[0], str) else ""


def successor(prefix: str) -> str | None:
    """Return the smallest text, by code point, above every text with this prefix; None if there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < sys.maxunicode:
            # No text holds a surrogate: the next character after U+D7FF is U+E000.
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return None


def ilike_regex(pattern: str) -> str | None:
    """Return the regular expression of an `ilike` pattern, each character a class of those that fold alike.

    Returns None for a pattern that is too long for the server's regex compiler.
    """
    if len(pattern) > _MAX_FOLDED:
        return None
    parts = ["^"]
    for part in parse_like(pattern):
        if part is ANY_RUN:
            if parts[-1] != ".*":
                parts.append(".*")
        elif part is ANY_ONE:
            parts.append(".")
        else:
            assert isinstance(part, str)
            parts.extend(map(_class, part))
    parts.append("$")
    # Without flags `.` takes line breaks, and `^` and `$` hold at the ends alone.
    return "".join(parts)


def _class(c: str) -> str:
    same = fold_groups().get(fold_character(c), c)
    return "[" + "".join(map(escape, same)) + "]"


def escape(c: str) -> str:
    """Return a character as the regex escape of its code point, valid inside a class and outside."""
    number = ord(c)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def inner_pattern(leaf: Leaf) -> str | None:
    """Return a `LIKE` pattern that a leaf implies and a trigram index serves, None if there is none."""
    match leaf:
        case Contains(_, text) if len(text) >= 3:
            return f"%{like_literal(text)}%"
        case EndsWith(_, text) if len(text) >= 3:
            return f"%{like_literal(text)}"
        case Like(_, pattern, False):
            return like_pattern(pattern)
        case _:
            return None
