"""The time that a task has waited for a pool, apart from the time for which its own loop kept it waiting.

Thousands of calls at once can keep a loop busy for longer than a pool's timeout, although a connection
is free each time that one of them has its turn. They wait for the processor, not for the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

# The share of the time from which on the loop counts as busy.
_BUSY = 0.5


class WaitTime:
    """A wait that begins now, in the thread of the loop, and is `timeout` seconds long at first."""

    __slots__ = ("_busy", "_period")

    def __init__(self, timeout: float) -> None:
        self._period, self._busy = timeout, time.thread_time()

    def extend(self) -> float:
        """Return for how many seconds more to wait, at the end of the time; 0 to give up.

        That is how long the loop's thread has worked meanwhile, if that was most of the time.
        """
        before, self._busy = self._busy, time.thread_time()
        worked = self._busy - before
        if worked <= self._period * _BUSY:
            return 0.0
        self._period = worked
        return worked


@contextlib.asynccontextmanager
async def pool_timeout(seconds: float | None) -> AsyncIterator[None]:
    """Raise `TimeoutError` in a block that waits for longer, not counting while the loop is busy.

    None is no limit.
    """
    async with asyncio.timeout(None) as scope:
        if seconds is None:
            yield
            return
        loop = asyncio.get_running_loop()
        waited = WaitTime(seconds)
        timer: asyncio.TimerHandle

        def expire() -> None:
            nonlocal timer
            more = waited.extend()
            if more:
                timer = loop.call_later(more, expire)
            else:
                scope.reschedule(loop.time())

        timer = loop.call_later(seconds, expire)
        try:
            yield
        finally:
            timer.cancel()
