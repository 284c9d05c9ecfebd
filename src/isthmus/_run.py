"""`db.run()`: a function in a transaction, repeated until it commits without a serialization failure."""

from __future__ import annotations

import asyncio
import weakref
from _random import Random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from isthmus._core.clock import Clock
from isthmus._transaction import Transaction, TransactionContext
from isthmus.errors import SerializationError

R = TypeVar("R")

DEFAULT_SECONDS = 30.0
"""How long a function is repeated where no deadline is configured."""

# Repeats of one process queue, by event loop and backend: fifty transactions on one record then take 95
# attempts, where pauses alone take 250 and a lock inside the transaction 670, since its snapshot is older.
_queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Lock]] = (
    weakref.WeakKeyDictionary()
)


async def run_repeatedly(
    begin: Callable[[], TransactionContext],
    work: Callable[[Transaction], Awaitable[R]],
    *,
    backend: str,
    attempts: int | None,
    seconds: float,
    clock: Clock,
) -> R:
    """Run `work` in a transaction until it commits; only a `SerializationError` repeats it.

    The first attempt does not wait for anything. Repeats queue, and pause with jitter, since other
    processes repeat too. After `attempts` attempts, or `seconds`, the last error is raised.
    """
    until = clock.now() + seconds
    try:
        return await _attempt(begin, work)
    except SerializationError as error:
        failure = error
    remaining = float("inf") if attempts is None else attempts - 1
    queue = _queues.setdefault(asyncio.get_running_loop(), {}).setdefault(backend, asyncio.Lock())
    timer = clock.timeout(max(0.0, until - clock.now()))
    try:
        async with timer as waiting:
            await queue.acquire()
    except TimeoutError:
        if not waiting.expired():
            raise
        raise failure from None
    try:
        for pause in _pauses():
            if remaining < 1 or clock.now() + pause >= until:
                raise failure
            remaining -= 1
            await clock.sleep(pause)
            try:
                return await _attempt(begin, work)
            except SerializationError as error:
                failure = error
    finally:
        queue.release()
    raise failure


async def _attempt(begin: Callable[[], TransactionContext], work: Callable[[Transaction], Awaitable[R]]) -> R:
    async with begin() as transaction:
        return await work(transaction)


def _pauses() -> Iterator[float]:
    """Yield 0, then growing random pauses of at most half a second."""
    random = Random().random
    yield 0.0
    limit = 0.005
    while True:
        yield random() * limit
        limit = min(limit * 2, 0.5)
