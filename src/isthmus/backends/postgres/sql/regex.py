"""Translates Python's regular expressions to PostgreSQL's, where one with the same matches exists.

What the pattern means (`_query/regex/tree.py`) is written with code points in place of characters, so
nothing of the pattern's spelling, flags and classes reaches the server.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from isthmus.backends.postgres.sql.like import escape

if TYPE_CHECKING:
    from isthmus._query.regex.charset import Ranges
    from isthmus._query.regex.tree import Node, Place, Repeat

_MAX_REPEAT = 255
_MAX_STATES = 200
"""With more states by bounded repeats, a text of 1 MB may take the server minutes (15.18)."""
_MAX_LENGTH = 50_000


class _UntranslatableError(Exception):
    """The pattern has a part without an exact counterpart."""


@functools.lru_cache(maxsize=512)
def translate(pattern: str) -> str | None:
    """Return an advanced regular expression that matches wherever `re.search` does; None if there is none."""
    # The parser and its tables of characters are loaded by the first regex, not at import.
    from isthmus._query.regex import Pattern, compile_regex

    compiled = compile_regex(pattern)
    if not isinstance(compiled, Pattern):
        return None
    if compiled.size > _MAX_STATES and _has_bounded_repeat(compiled.tree):
        return None
    try:
        text = _translate(compiled.tree)
    except _UntranslatableError:
        return None
    return text if len(text) <= _MAX_LENGTH else None


def _translate(node: Node) -> str:
    from isthmus._query.regex.tree import Anchor, Branches, Characters, Repeat, Sequence

    match node:
        case Characters(ranges):
            return _set(ranges)
        case Anchor(anchor):
            return _anchor(anchor)
        case Sequence(items):
            return "".join(map(_translate, items))
        case Branches(items):
            return "(?:" + "|".join(map(_translate, items)) + ")"
        case Repeat():
            return _repeat(node)


def _repeat(node: Repeat) -> str:
    low, high = node.low, node.high
    if max(low, high or 0) > _MAX_REPEAT or _has_anchor(node.item):
        raise _UntranslatableError
    text = f"(?:{_translate(node.item)})"
    if high is None and low <= 1:
        return text + ("+" if low else "*")
    return f"{text}{{{low},{'' if high is None else high}}}"


def _has_bounded_repeat(node: Node) -> bool:
    from isthmus._query.regex.tree import Branches, Repeat, Sequence

    match node:
        case Repeat(item, low, high):
            return max(low, high or 0) > 1 or _has_bounded_repeat(item)
        case Sequence(items) | Branches(items):
            return any(map(_has_bounded_repeat, items))
        case _:
            return False


def _has_anchor(node: Node) -> bool:
    """Return whether an anchor stands inside, which the server does not repeat."""
    from isthmus._query.regex.tree import Anchor, Branches, Repeat, Sequence

    match node:
        case Repeat(item):
            return _has_anchor(item)
        case Sequence(items) | Branches(items):
            return any(map(_has_anchor, items))
        case _:
            return isinstance(node, Anchor)


def _anchor(anchor: Place) -> str:
    anchors = {r"\A": "\\A", r"\Z": "\\Z", "$": "(?=\\u000a?\\Z)"}
    if anchor.value not in anchors:
        raise _UntranslatableError
    return anchors[anchor.value]


def _set(ranges: Ranges) -> str:
    # U+0000 and surrogates are in no stored text, and the server rejects their escapes.
    parts = []
    for low, high in ranges:
        for first, last in ((max(low, 1), min(high, 0xD7FF)), (max(low, 0xE000), high)):
            if first == last:
                parts.append(escape(chr(first)))
            elif first < last:
                parts.append(f"{escape(chr(first))}-{escape(chr(last))}")
    if not parts:
        raise _UntranslatableError
    return parts[0] if len(parts) == 1 and "-" not in parts[0] else f"[{''.join(parts)}]"
