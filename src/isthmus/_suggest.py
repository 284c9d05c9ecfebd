"""The nearest known name, for errors about an unknown one."""

from __future__ import annotations

from collections.abc import Iterable


def suggest(word: object, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'? Known: x, y", the question only if something is near."""
    import difflib  # only errors need it

    names = list(known)
    near = difflib.get_close_matches(str(word), names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{hint} Known: {', '.join(names)}"
