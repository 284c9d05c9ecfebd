"""Finds text in text in steps that are short enough for another thread to take its turn between them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

_BLOCK = 1 << 16


class StoppedError(Exception):
    """Nobody waits for the answer any more."""


class _Current(threading.local):
    proceed: Callable[[], bool] | None = None


_current = _Current()


@contextlib.contextmanager
def stoppable(proceed: Callable[[], bool]) -> Iterator[None]:
    """Have long evaluations of this thread end with `StoppedError` soon after `proceed` returns False."""
    before, _current.proceed = _current.proceed, proceed
    try:
        yield
    finally:
        _current.proceed = before


def check() -> None:
    """Raise `StoppedError` if the evaluation is to end; called now and then during long work."""
    if _current.proceed is not None and not _current.proceed():
        raise StoppedError


def find_text(text: str, part: str, start: int, end: int) -> int:
    """Return `text.find(part, start, end)`, in blocks: one call on a long text would hold all threads."""
    while end - start > _BLOCK + len(part):
        index = text.find(part, start, start + _BLOCK + len(part) - 1)
        if index >= 0:
            return index
        start += _BLOCK
        check()
    return text.find(part, start, end)
