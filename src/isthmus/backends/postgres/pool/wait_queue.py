"""Those who wait for a connection, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

from isthmus.backends.postgres.pool.pooled_connection import Holder, Slot

Waiter: TypeAlias = "asyncio.Future[Slot]"


class Waiters:
    """A queue that can be left from any place."""

    __slots__ = ("_loop", "_queue")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: OrderedDict[Waiter, tuple[Holder, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._queue)

    def join(self, task: Holder, began: float) -> Waiter:
        """Return a place at the end: a future that will be a connection's slot, or an error."""
        waiter = self._loop.create_future()
        self._queue[waiter] = (task, began)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Give up a place."""
        self._queue.pop(waiter, None)

    def first(self) -> tuple[Waiter, Holder] | None:
        """Take the first who still waits out of the queue."""
        while self._queue:
            waiter, (task, _) = self._queue.popitem(last=False)
            if not waiter.done():
                return waiter, task
        return None

    def refuse(self, make: Callable[[], Exception], *, since: float | None = None) -> None:
        """Fail all, or those who have waited since then; each gets an error of its own."""
        while self._queue:
            waiter, (_, began) = next(iter(self._queue.items()))
            if since is not None and began > since:
                return
            del self._queue[waiter]
            if not waiter.done():
                waiter.set_exception(make())
