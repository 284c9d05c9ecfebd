"""The tasks that wait for a connection, first come, first served."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from isthmus._core.wait_time import WaitTime
from isthmus.backends.postgres.pool.pooled_connection import Holder, PooledConnection, describe_holders
from isthmus.errors import PoolTimeoutError

if TYPE_CHECKING:
    from isthmus.backends.postgres.pool.pool import Pool

DESCRIPTION_SECONDS = 0.02
"""How long one description of the pool serves the callers that time out together."""

Waiter: TypeAlias = "asyncio.Future[PooledConnection]"


class _QueueEntry(NamedTuple):
    task: Holder
    started: float
    timer: asyncio.TimerHandle | None


class WaitQueue:
    """A queue of futures that can be left from any position."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._pool = pool
        self._loop = loop
        self._now = now
        self._max_waiting = pool.config.pool.max_waiting
        self._entries: OrderedDict[Waiter, _QueueEntry] = OrderedDict()
        self._description: tuple[float, str] = (float("-inf"), "")
        self.reclaimable: dict[int, Callable[[], None]] = {}
        """Calls that give back a connection which is held but not needed, by token, the oldest first."""
        self.timeouts = 0
        """How many calls ended without a connection in time."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_stuck(self) -> bool:
        """Whether somebody waits and no further connection can be opened."""
        return bool(self._entries) and len(self._pool.connections) >= self._pool.max_size

    async def wait(self, task: Holder, started: float, timeout: float | None) -> PooledConnection:
        """Wait at the end of the queue for a connection, which `task` then holds.

        `started` is when the call began, on the pool's clock; `timeout` is in seconds of the loop's
        time (None: no limit). Raises `PoolTimeoutError`, at once with `max_waiting` callers in the queue,
        or the error with which a connection could not be opened.
        """
        pool, limit = self._pool, self._max_waiting
        # Callers for whom a connection may be opened do not count as waiting.
        if limit is not None and len(self) >= limit + pool.max_size - len(pool.connections):
            raise self._timeout_error(f"{limit} callers wait for a connection already")
        waiter: Waiter = self._loop.create_future()
        timer = None
        if timeout is not None:
            waited = WaitTime(timeout)
            timer = self._loop.call_later(timeout, self._time_out, waiter, timeout, waited)
        self._entries[waiter] = _QueueEntry(task, started, timer)
        pool.connector.open_more(urgent=True)
        if self.reclaimable and self.is_stuck:
            self.reclaimable.pop(next(iter(self.reclaimable)))()
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # Cancelled at the very moment of the hand-over: on to the next waiter.
                pool.release(waiter.result().connection)
            else:
                self.leave(waiter)
            raise

    def _time_out(self, waiter: Waiter, timeout: float, waited: WaitTime) -> None:
        if waiter.done():
            return
        more = waited.extend()
        if more:  # the loop was busy, whatever the pool had
            timer = self._loop.call_later(more, self._time_out, waiter, timeout, waited)
            self._entries[waiter] = self._entries[waiter]._replace(timer=timer)
            return
        self.leave(waiter)
        waiter.set_exception(self._timeout_error(f"no connection became free within {timeout:g} s"))

    def _timeout_error(self, reason: str) -> PoolTimeoutError:
        self.timeouts += 1
        now = self._now()
        made_at, text = self._description
        if now - made_at > DESCRIPTION_SECONDS:
            text = self._describe_pool(now)
            self._description = (now, text)
        return PoolTimeoutError(f"{reason}; {text}")

    def _describe_pool(self, now: float) -> str:
        pool = self._pool
        text = (
            f"{len(pool.connections)} of {pool.max_size} open, {len(pool.idle)} idle, "
            f"{len(self)} waiting; {describe_holders(pool.held.values(), now)}"
        )
        if len(pool.connections) < pool.max_size and pool.last_connect_error is not None:
            text += f"; the last attempt to open one failed: {pool.last_connect_error}"
        return text

    def leave(self, waiter: Waiter) -> None:
        """Remove a waiter, if it is still there."""
        entry = self._entries.pop(waiter, None)
        if entry is not None and entry.timer is not None:
            entry.timer.cancel()

    def pop_first(self) -> tuple[Waiter, Holder] | None:
        """Remove and return the first waiter whose call was not cancelled, with its task."""
        while self._entries:
            waiter, entry = self._entries.popitem(last=False)
            if entry.timer is not None:
                entry.timer.cancel()
            if not waiter.done():
                return waiter, entry.task
        return None

    def fail(self, make_error: Callable[[], Exception], *, started_by: float | None = None) -> None:
        """Fail all waiters, or those whose call had begun by then; each gets an error of its own."""
        while self._entries:
            waiter, entry = next(iter(self._entries.items()))
            if started_by is not None and entry.started > started_by:
                return
            self.leave(waiter)
            if not waiter.done():
                waiter.set_exception(make_error())
