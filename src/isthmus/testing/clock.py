"""A virtual clock, with which tests of timeouts and backoff take no real time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

__all__ = ["VirtualClock"]


class VirtualClock:
    """A clock that advances only when told to; times are in seconds.

    `advance(10)` wakes sleepers and expires timeouts of the next ten seconds in order, each at its
    own time. With `auto=True` the clock advances by itself to the next sleeper as soon as the event
    loop is otherwise idle; use it for code that waits for nothing but this clock.
    """

    def __init__(self, *, start: float = 0.0, auto: bool = False) -> None:
        self._now = start
        self._auto = auto
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._driver: asyncio.Task[None] | None = None
        self.slept: list[float] = []
        """The duration of each sleep, in order."""

    def now(self) -> float:
        """Return the current virtual time in seconds."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has advanced by `seconds`."""
        self.slept.append(seconds)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._schedule(seconds, lambda: None if done.done() else done.set_result(None))
        await done

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """Raise `TimeoutError` in the block once the clock has advanced by `seconds`."""
        loop = asyncio.get_running_loop()
        exited = False
        async with asyncio.timeout(None) as timer:

            def expire() -> None:
                if not exited:
                    timer.reschedule(loop.time())

            self._schedule(seconds, expire)
            try:
                yield timer
            finally:
                exited = True

    def _schedule(self, seconds: float, wake: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self._now + seconds, next(self._number), wake))
        if self._auto and (self._driver is None or self._driver.done()):
            self._driver = asyncio.ensure_future(self._drive())

    async def advance(self, seconds: float) -> None:
        """Advance the clock; each task that wakes runs until it waits again before time goes on."""
        end = self._now + seconds
        await _run_ready_tasks()
        while self._timers and self._timers[0][0] <= end:
            await self._step()
        self._now = max(self._now, end)
        await _run_ready_tasks()

    async def _step(self) -> None:
        when, _, wake = heapq.heappop(self._timers)
        self._now = max(self._now, when)
        wake()
        await _run_ready_tasks()

    async def _drive(self) -> None:
        await _run_ready_tasks()
        while self._timers:
            await self._step()


async def _run_ready_tasks() -> None:
    """Run all tasks that are ready until they wait for something."""
    for _ in range(50):
        await asyncio.sleep(0)
