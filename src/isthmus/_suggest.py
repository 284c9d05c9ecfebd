"""Suggestions for misspelled names, for error messages."""

from __future__ import annotations

from collections.abc import Iterable


def suggest(word: object, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'? Known: x, y", without the question if no known name is similar."""
    import difflib  # only errors need it

    names = list(known)
    similar = difflib.get_close_matches(str(word), names, 1)
    hint = f"; did you mean {similar[0]!r}?" if similar else "."
    return f"{hint} Known: {', '.join(names)}"
