"""Long searches in text: in short steps, one at a time, and ended when nobody waits for the answer.

A search in a thread competes with the event loop for the interpreter's lock. Two of them delay the
loop much longer than one, so that one at a time runs, for some milliseconds, then the next.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

_BLOCK = 1 << 16
_TURN, _PAUSE = 0.010, 0.001
"""Seconds that a long search runs until it lets others run, and for how long it does."""


class StoppedError(Exception):
    """Nobody waits for the answer any more."""


class _Thread(threading.local):
    proceed: Callable[[], bool] | None = None
    until = 0.0
    """When its turn ends; 0 if it has none."""


_thread = _Thread()
_turn = threading.Lock()


def _renew() -> None:
    global _turn
    _turn = threading.Lock()


# Another thread may have its turn when a process is forked; the child has no such thread.
os.register_at_fork(after_in_child=_renew)


@contextlib.contextmanager
def stoppable(proceed: Callable[[], bool]) -> Iterator[None]:
    """Have long searches of this thread take turns, and end with `StoppedError` once `proceed` is false."""
    before, _thread.proceed = _thread.proceed, proceed
    try:
        yield
    finally:
        end_turn()
        _thread.proceed = before


def find_proceed() -> Callable[[], bool]:
    """Return the test of whether this thread's answer is still wanted, for threads that work for it."""
    return _thread.proceed or (lambda: True)


def check() -> None:
    """Wait for a turn, or raise `StoppedError` if the search is to end; called every few milliseconds."""
    proceed = _thread.proceed
    if proceed is None:
        return
    if not proceed():
        raise StoppedError
    if _thread.until:
        if time.perf_counter() < _thread.until:
            return
        end_turn()
        time.sleep(_PAUSE)
    while not _turn.acquire(timeout=0.05):
        if not proceed():
            raise StoppedError
    _thread.until = time.perf_counter() + _TURN


def end_turn() -> None:
    """Let others run; called after each search."""
    if _thread.until:
        _thread.until = 0.0
        _turn.release()


def find_text(text: str, part: str, start: int, end: int) -> int:
    """Return `text.find(part, start, end)`, in blocks: one call on a long text would hold all threads."""
    while end - start > _BLOCK + len(part):
        index = text.find(part, start, start + _BLOCK + len(part) - 1)
        if index >= 0:
            return index
        start += _BLOCK
        check()
    return text.find(part, start, end)
