"""Runs long evaluations in threads, which end soon after their callers are cancelled."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from isthmus._query.ast import In, Predicate, count_leaves, leaves
from isthmus._query.find import stoppable
from isthmus._query.shape import shape_of

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

R = TypeVar("R")
T = TypeVar("T")
LONG: Final = 20_000
"""The effort times the characters of a text, some 2 ms at worst, from which a thread takes over."""
_TURN = 0.005
"""Seconds after which other tasks get their turn."""
_WIDE, _MANY = 200, 5_000
"""The number of leaves and of operands, 10 ms at worst, from which a thread compiles a condition."""
PART: Final = 500
"""The rows of a result from which other tasks get their turn."""
_WORKERS = 4
"""How many callers take turns; further ones wait until one has ended.

All of them come into use, and the allocator keeps some 20 MB for each thread that reads a large file.
"""

_pool: ThreadPoolExecutor | None = None


def _executor() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        from concurrent.futures import ThreadPoolExecutor  # not at import: few programs need it

        _pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="isthmus-evaluation")
    return _pool


def _forget() -> None:
    global _pool
    _pool = None


# The child of a fork has the pool but none of its threads.
os.register_at_fork(after_in_child=_forget)


async def compile_statement(where: Predicate, compile: Callable[[], R]) -> R:
    """Return what a function compiles a condition to; one of many leaves or operands in a thread."""
    return await run_in_thread(compile) if _takes_long(where) else compile()


def _takes_long(where: Predicate) -> bool:
    if shape_of(where) is not None:
        return False
    if count_leaves(where) > _WIDE:
        return True
    return sum(len(leaf.values) for leaf in leaves(where) if isinstance(leaf, In)) > _MANY


class Turns:
    """The turns of other tasks during a long loop: `if turns.are_due: await turns.give()`."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = time.perf_counter() + _TURN

    @property
    def are_due(self) -> bool:
        """Whether the loop has taken some milliseconds since it last gave way."""
        return time.perf_counter() > self._next

    async def give(self) -> None:
        """Let other tasks run; a deadline ends the loop here."""
        await asyncio.sleep(0)
        self._next = time.perf_counter() + _TURN


async def in_turns(rows: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Yield the rows of a result in parts, between which other tasks get their turn."""
    for start in range(0, len(rows), PART):
        if start:
            await asyncio.sleep(0)
        yield rows[start : start + PART]


async def run_in_thread(work: Callable[[], R]) -> R:
    """Return the result of a function that evaluates predicates, without holding up the event loop."""
    ended = threading.Event()
    main = threading.main_thread()

    def run() -> R:
        with stoppable(lambda: not ended.is_set() and main.is_alive()):
            return work()

    try:
        return await asyncio.get_running_loop().run_in_executor(_executor(), run)
    finally:
        ended.set()
