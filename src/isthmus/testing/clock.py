"""A clock that moves only when nothing else can, so that an hour of back-off takes a moment."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

__all__ = ["VirtualClock"]


class VirtualClock:
    """Seconds that pass when they are advanced.

    `advance(10)` lets ten seconds pass, waking sleepers and ending timeouts in their order, each at
    its time. With `auto=True` a sleeper's time comes by itself as soon as the loop has nothing else
    to do for a few turns: right for code that waits for nothing but this clock.
    """

    def __init__(self, *, start: float = 0.0, auto: bool = False) -> None:
        self._now = start
        self._auto = auto
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._driver: asyncio.Task[None] | None = None
        self.slept: list[float] = []
        """Every pause that was asked for, in order."""

    def now(self) -> float:
        """Return the virtual seconds."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Pause until the clock was advanced by so much."""
        self.slept.append(seconds)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._at(seconds, lambda: None if done.done() else done.set_result(None))
        await done

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """Return a block that is ended by `TimeoutError` once the clock was advanced by so much."""
        loop = asyncio.get_running_loop()
        left = False
        async with asyncio.timeout(None) as timer:

            def expire() -> None:
                if not left:
                    timer.reschedule(loop.time())

            self._at(seconds, expire)
            try:
                yield timer
            finally:
                left = True

    def _at(self, seconds: float, wake: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self._now + seconds, next(self._number), wake))
        if self._auto and (self._driver is None or self._driver.done()):
            self._driver = asyncio.ensure_future(self._drive())

    async def advance(self, seconds: float) -> None:
        """Let seconds pass; whoever wakes runs until it waits again, before more time passes."""
        end = self._now + seconds
        await _settle()
        while self._due and self._due[0][0] <= end:
            await self._step()
        self._now = max(self._now, end)
        await _settle()

    async def _step(self) -> None:
        when, _, wake = heapq.heappop(self._due)
        self._now = max(self._now, when)
        wake()
        await _settle()

    async def _drive(self) -> None:
        await _settle()
        while self._due:
            await self._step()


async def _settle() -> None:
    """Let everything that can run do so, until it waits for something outside."""
    for _ in range(50):
        await asyncio.sleep(0)
