"""Slots: permissions to use one of a client's connections, given in order of arrival."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from isthmus._core.executor import PoolStats
from isthmus._core.wait_time import WaitTime
from isthmus.errors import PoolTimeoutError

_NAMED = 10
"""How many holders an error names, those of the longest first."""


@dataclass(slots=True, eq=False)
class _Use:
    """A slot in use: by which task, and since when."""

    task: asyncio.Task[Any] | None
    since: float


class Slots:
    """At most `size` uses at a time; a caller that gets none within `timeout` seconds (None: ever) fails.

    The time for which the loop is busy does not count.
    """

    def __init__(self, size: int, timeout: float | None) -> None:
        self._size = size
        self._timeout = timeout
        self._uses: set[_Use] = set()
        self._waiting: OrderedDict[asyncio.Future[_Use], asyncio.Task[Any] | None] = OrderedDict()
        self._timers: dict[asyncio.Future[_Use], asyncio.TimerHandle] = {}
        self._acquired = self._timeouts = 0
        self._wait_seconds = self._use_seconds = 0.0

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold a slot; raises `PoolTimeoutError`, which names the holders."""
        task = asyncio.current_task()
        use = await self._wait(task) if self._waiting or len(self._uses) >= self._size else self._take(task)
        try:
            yield
        finally:
            self._release(use)

    def _take(self, task: asyncio.Task[Any] | None) -> _Use:
        use = _Use(task, time.monotonic())
        self._uses.add(use)
        self._acquired += 1
        return use

    def _release(self, use: _Use) -> None:
        self._uses.remove(use)
        self._use_seconds += time.monotonic() - use.since
        while self._waiting:
            waiter, task = self._waiting.popitem(last=False)
            if not waiter.done():
                # Handed over at once: a caller that times out in this turn of the loop sees it in use.
                waiter.set_result(self._take(task))
                return

    async def _wait(self, task: asyncio.Task[Any] | None) -> _Use:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[_Use] = loop.create_future()
        self._waiting[waiter] = task
        if self._timeout is not None:
            self._start_timer(waiter, WaitTime(self._timeout), self._timeout)
        begun = time.monotonic()
        try:
            return await waiter
        except asyncio.CancelledError:
            self._waiting.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())
            raise
        finally:
            timer = self._timers.pop(waiter, None)
            if timer is not None:
                timer.cancel()
            self._wait_seconds += time.monotonic() - begun

    def _start_timer(self, waiter: asyncio.Future[_Use], waited: WaitTime, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[waiter] = loop.call_later(seconds, self._expire, waiter, waited)

    def _expire(self, waiter: asyncio.Future[_Use], waited: WaitTime) -> None:
        if waiter.done():
            return
        more = waited.extend()
        if more:
            self._start_timer(waiter, waited, more)
            return
        del self._waiting[waiter]
        self._timeouts += 1
        now = time.monotonic()
        longest = sorted(self._uses, key=lambda use: use.since)[:_NAMED]
        names = ", ".join(
            f"{'a callback' if use.task is None else use.task.get_name()} for {now - use.since:.1f} s"
            for use in longest
        )
        waiter.set_exception(
            PoolTimeoutError(
                f"no connection became free within {self._timeout} s:"
                f" {len(self._uses)} of {self._size} are in use by {names}"
            )
        )

    def stats(self, min_size: int) -> PoolStats:
        """Return how the slots are used."""
        return PoolStats(
            size=len(self._uses),
            in_use=len(self._uses),
            waiting=len(self._waiting),
            max_size=self._size,
            min_size=min_size,
            acquired=self._acquired,
            timeouts=self._timeouts,
            wait_seconds=self._wait_seconds,
            use_seconds=self._use_seconds,
        )
