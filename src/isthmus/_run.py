"""`db.run()`: a function in a transaction, repeated until it commits without a serialization failure."""

from __future__ import annotations

import asyncio
import weakref
from _random import Random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from isthmus._arguments import check_count
from isthmus._core.clock import Clock
from isthmus._transaction import Transaction, TransactionContext
from isthmus.errors import SerializationError, UsageError

R = TypeVar("R")


class RepeatQueue:
    """The queue of a database's repeated functions, one for each event loop; its handles share it.

    Fifty transactions on one record then take 95 attempts, where pauses alone take 250 and a lock
    inside the transaction 670, since its snapshot is older.
    """

    def __init__(self) -> None:
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )

    def lock(self) -> asyncio.Lock:
        """Return the lock of the running loop, which serves in order of arrival."""
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


async def run_joined(
    outer: Transaction, work: Callable[[Transaction], Awaitable[R]], isolation: str | None
) -> R:
    """Run `work` once in a savepoint: a conflict undoes the whole transaction, so only that can be repeated.

    Raises `UsageError` if the open transaction is of a lower level than the promise needs.
    """
    level = outer._own.isolation
    if isolation is not None and level not in (isolation, "serializable"):
        raise UsageError(
            f"run() is {isolation}, and the open transaction is {level or 'at the default level'}:"
            f" open that by run() or with isolation={isolation!r}, or call the function with it"
        )
    async with outer.savepoint() as transaction:
        return await work(transaction)


async def run_repeatedly(
    begin: Callable[[], TransactionContext],
    work: Callable[[Transaction], Awaitable[R]],
    queue: RepeatQueue,
    *,
    attempts: int | None,
    seconds: float,
    clock: Clock,
) -> R:
    """Run `work` in a transaction until it commits; only a `SerializationError` repeats it.

    So does a conflict of SQL of the user, which is the driver's error, and raised as `SerializationError`.
    The first attempt does not wait for anything. Repeats queue, and pause with jitter, since other
    processes repeat too. After `attempts` attempts, or `seconds`, the last error is raised.
    """
    if attempts is not None:
        check_count("attempts", attempts)
    until = clock.now() + seconds
    try:
        return await _attempt(begin, work)
    except SerializationError as error:
        failure = error
    remaining = float("inf") if attempts is None else attempts - 1
    lock = queue.lock()
    timer = clock.timeout(max(0.0, until - clock.now()))
    try:
        async with timer as waiting:
            await lock.acquire()
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
        lock.release()
    raise failure


async def _attempt(begin: Callable[[], TransactionContext], work: Callable[[Transaction], Awaitable[R]]) -> R:
    async with begin() as transaction:
        try:
            return await work(transaction)
        except Exception as error:
            conflict = transaction._own.conflict_of(error)
            if conflict is None:
                raise
            raise conflict from error


def _pauses() -> Iterator[float]:
    """Yield 0, then growing random pauses of at most half a second."""
    random = Random().random
    yield 0.0
    limit = 0.005
    while True:
        yield random() * limit
        limit = min(limit * 2, 0.5)
