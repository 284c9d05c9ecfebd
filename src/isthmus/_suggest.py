"""Suggestions for misspelled names, for error messages."""

from __future__ import annotations

from collections.abc import Iterable

from isthmus._arguments import shorten


def suggest(word: object, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'? Known: x, y", without the question if no known name is similar."""
    import difflib  # only errors need it

    names = list(known)
    similar = difflib.get_close_matches(_text(word), names, 1)
    hint = f"; did you mean {similar[0]!r}?" if similar else "."
    return f"{hint} Known: {', '.join(names)}"


def suggest_nearest(word: object, known: Iterable[str]) -> str:
    """Return "; did you mean 'x', 'y' or 'z'?" with the three most similar of many names."""
    import difflib  # only errors need it

    *others, last = difflib.get_close_matches(_text(word), sorted(set(known)), 3, 0.0)
    names = f"{', '.join(map(repr, others))} or {last!r}" if others else repr(last)
    return f"; did you mean {names}?"


def _text(word: object) -> str:
    return word if isinstance(word, str) else shorten(word)
