"""Finds text in text in steps that are short enough for another thread to take its turn between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Proceed: TypeAlias = Callable[[], bool]
"""Called now and then during a long evaluation; False ends it with `StoppedError`."""
_BLOCK = 1 << 16


class StoppedError(Exception):
    """The caller no longer waits for the answer."""


def check(proceed: Proceed | None) -> None:
    """Raise `StoppedError` if the evaluation is to end."""
    if proceed is not None and not proceed():
        raise StoppedError


def find_text(text: str, part: str, start: int, end: int, proceed: Proceed | None = None) -> int:
    """Return `text.find(part, start, end)`, in blocks: one call on a long text would hold all threads."""
    while end - start > _BLOCK + len(part):
        index = text.find(part, start, start + _BLOCK + len(part) - 1)
        if index >= 0:
            return index
        start += _BLOCK
        check(proceed)
    return text.find(part, start, end)
