"""LIKE patterns and the one-character fold of `ilike` (meaning §3)."""

from __future__ import annotations

import functools
from typing import Final


class Wild:
    """A wildcard in a parsed LIKE pattern."""

    __slots__ = ("sign",)

    def __init__(self, sign: str) -> None:
        self.sign: Final = sign

    def __repr__(self) -> str:
        return f"<{self.sign}>"


ANY_RUN = Wild("%")
ANY_ONE = Wild("_")


@functools.lru_cache(maxsize=1024)
def parse_like(pattern: str) -> tuple[str | Wild, ...]:
    """Return the pattern as literal runs and wildcards, escapes resolved.

    A backslash takes the next character literally; a lone one at the end stands for itself.
    """
    parts: list[str | Wild] = []
    literal: list[str] = []
    characters = iter(pattern)
    for c in characters:
        if c == "\\":
            literal.append(next(characters, "\\"))
        elif c in "%_":
            if literal:
                parts.append("".join(literal))
                literal = []
            parts.append(ANY_RUN if c == "%" else ANY_ONE)
        else:
            literal.append(c)
    if literal:
        parts.append("".join(literal))
    return tuple(parts)


def fold_character(c: str) -> str:
    """Return the one-character fold: casefold if that is one character, else lower, else itself."""
    folded = c.casefold()
    if len(folded) == 1:
        return folded
    lowered = c.lower()
    return lowered if len(lowered) == 1 else c


def fold(text: str) -> str:
    """Return the text with each character folded; never another length."""
    if text.isascii():
        return text.lower()
    return "".join(map(fold_character, text))


@functools.cache
def fold_groups() -> dict[str, str]:
    """Return for each fold the characters that have it, where those are more than the fold itself."""
    # The table is loaded when the first server pattern needs it, not at import.
    from isthmus._query import unicode_tables

    groups: dict[str, set[str]] = {}
    for low, high in unicode_tables.ranges(unicode_tables.FOLDED):
        for c in map(chr, range(low, high + 1)):
            folded = fold_character(c)
            groups.setdefault(folded, set()).add(c)
            if fold_character(folded) == folded:
                groups[folded].add(folded)
    return {folded: "".join(sorted(members)) for folded, members in groups.items() if members != {folded}}
