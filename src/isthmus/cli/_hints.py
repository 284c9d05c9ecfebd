"""The nearest known name to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def hint_at_nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message on a name that is not known: the nearest that is, if one is near."""
    folded = {other.casefold(): other for other in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f"; {folded[near[0]]!r} is there" if near else ""
