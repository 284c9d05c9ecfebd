"""Coalesces concurrent single-row calls: the first runs at once; later ones are batched until it returns."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from isthmus.errors import Applied, UnexpectedError

Item = TypeVar("Item")
R = TypeVar("R")

MAX_IN_FLIGHT = 4
"""Statements that run at once; further calls wait for one of them to end."""
MAX_BATCH = 500
"""Calls of one statement."""


class Coalescer(Generic[Item, R]):
    """Batches the calls that are made while earlier ones run; each caller gets its own result.

    The batch runs in a task of its own, so cancelling one caller does not affect the others. If a
    batch fails for a reason that may be one item's, each item is run alone.
    """

    def __init__(
        self, run: Callable[[Sequence[Item]], Awaitable[Sequence[R]]], *, max_batch: int = MAX_BATCH
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._pending: list[tuple[Item, asyncio.Future[R]]] = []
        self._scheduled = False
        self._batches: set[asyncio.Task[None]] = set()
        self._direct_calls = 0

    async def __call__(self, item: Item) -> R:
        """Return the result for one item."""
        if not (self._pending or self._batches or self._direct_calls):
            # Nothing to share a statement with: saves a task and a future.
            self._direct_calls += 1
            try:
                return (await self._run((item,)))[0]
            finally:
                self._direct_calls -= 1
                if self._pending:
                    self._schedule()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._pending.append((item, future))
        self._schedule()
        return await future

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            # After everything that is ready in this turn of the loop, so that it can join.
            asyncio.get_running_loop().call_soon(self._start_batches)

    def _start_batches(self) -> None:
        self._scheduled = False
        while self._pending and len(self._batches) < MAX_IN_FLIGHT:
            most = self._max_batch
            calls, self._pending = self._pending[:most], self._pending[most:]
            calls = [call for call in calls if not call[1].done()]
            if calls:
                batch = asyncio.get_running_loop().create_task(
                    self._run_batch(calls), name="isthmus-coalesced"
                )
                self._batches.add(batch)
                batch.add_done_callback(self._end_batch)

    def _end_batch(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        if self._pending:
            self._schedule()

    async def _run_batch(self, calls: list[tuple[Item, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run([item for item, _ in calls])
        except asyncio.CancelledError:  # the loop is ending
            for _, future in calls:
                future.cancel()
            raise
        except Exception as error:  # of any kind: the callers get it
            if len(calls) == 1 or not _may_be_one_item(error):
                for _, future in calls:
                    if not future.done():
                        # Each caller raises a copy: raising writes a traceback into the object.
                        own = copy.copy(error)
                        own.__cause__ = error.__cause__
                        future.set_exception(own)
                return
        else:
            for (_, future), result in zip(calls, results, strict=True):
                if not future.done():
                    future.set_result(result)
            return
        for call in calls:
            if not call[1].done():
                await self._run_batch([call])


def _may_be_one_item(error: Exception) -> bool:
    """Return whether the server refused the content of one item and applied nothing."""
    return isinstance(error, UnexpectedError) and error.applied is Applied.NO
