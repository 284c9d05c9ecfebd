"""Concurrent single calls as one statement: the first runs at once, who comes meanwhile goes together."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from isthmus.errors import Applied, UnexpectedError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AT_ONCE = 4
"""Statements in flight above which callers wait for the next one to end."""
LARGEST = 500


class Merged(Generic[Item, Answer]):
    """Collects the items of one loop turn and gives each caller its own answer.

    A caller that is cancelled does not disturb the others: the statement belongs to nobody's
    task. If a statement fails for a reason that may be one item's, each item is run alone.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]]) -> None:
        self._run = run
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._scheduled = False
        self._flights: set[asyncio.Task[None]] = set()
        self._alone = 0

    async def __call__(self, item: Item) -> Answer:
        """Return the answer for one item."""
        if not (self._waiting or self._flights or self._alone):
            # Nobody to go with: without a task and a future in between.
            self._alone += 1
            try:
                return (await self._run((item,)))[0]
            finally:
                self._alone -= 1
                if self._waiting:
                    self._schedule()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, answer))
        self._schedule()
        return await answer

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            # Behind all that is ready to run in this turn, so that it can join.
            asyncio.get_running_loop().call_soon(self._depart)

    def _depart(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._flights) < AT_ONCE:
            together, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            together = [pair for pair in together if not pair[1].done()]
            if together:
                flight = asyncio.get_running_loop().create_task(self._fly(together), name="isthmus-merged")
                self._flights.add(flight)
                flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        if self._waiting:
            self._schedule()

    async def _fly(self, together: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._run([item for item, _ in together])
        except asyncio.CancelledError:  # the loop is ending
            for _, future in together:
                future.cancel()
            raise
        except Exception as error:  # whatever it is, it is the callers'
            if len(together) == 1 or not _may_be_one_items(error):
                for _, future in together:
                    if not future.done():
                        # Each raises one of its own: a traceback is written into the object.
                        own = copy.copy(error)
                        own.__cause__ = error.__cause__
                        future.set_exception(own)
                return
        else:
            for (_, future), answer in zip(together, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
            return
        for pair in together:
            if not pair[1].done():
                await self._fly([pair])


def _may_be_one_items(error: Exception) -> bool:
    """Return whether the server refused what one item holds, and nothing was done."""
    return isinstance(error, UnexpectedError) and error.applied is Applied.NO
