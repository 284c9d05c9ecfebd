"""Opening connections in the background: as many as are wanted, few at once, with pauses after failures."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Protocol

log = logging.getLogger("isthmus.postgres.pool")

# The longest pause keeps the promise to serve within two seconds of the server's return.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.5


class Demand(Protocol):
    """What the pool tells about its needs."""

    def wanted(self, opening: int) -> int:
        """Return how many more connections could be of use, given how many are being opened."""
        ...

    def alone(self) -> bool:
        """Return whether the pool has no connection at all."""
        ...

    def refused(self, error: Exception, began: float) -> bool:
        """Take note that an opening that began then has failed; return whether to try again at once."""
        ...

    def ended(self) -> None:
        """Take note that an opening is over."""
        ...


class Openings:
    """The connections that a pool is opening."""

    def __init__(
        self, demand: Demand, open_one: Callable[[], Awaitable[None]], *, limit: int, patience: float
    ) -> None:
        self._demand = demand
        self._open_one = open_one
        self._limit = limit
        self._patience = patience
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._failures = 0
        self._failing_since = 0.0
        self._stopped = False
        self._gave_up = False

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """The openings under way."""
        return frozenset(self._tasks)

    def more(self, *, called: bool = False) -> None:
        """Begin as many openings as are wanted and allowed.

        After a failure there is a pause, except for a caller when the pool has nothing else to
        give: that one is to get its connection, or the error, at once.
        """
        if self._stopped or (self._gave_up and not called):
            return
        self._gave_up = False
        if self._pause is not None:
            if not (called and self._demand.alone()):
                return
            self._pause.cancel()
            self._pause = None
        while len(self._tasks) < self._limit and self._demand.wanted(len(self._tasks)) > 0:
            task = asyncio.get_running_loop().create_task(self._run(), name="isthmus-postgres-open")
            self._tasks.add(task)

    async def _run(self) -> None:
        began = monotonic()
        failure: Exception | None = None
        try:
            await self._open_one()
        except Exception as error:  # of any kind: it goes to those who wait, and the next attempt is paused
            failure = error
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)
            self._demand.ended()
        if self._stopped:
            return
        if failure is None:
            self._failures = 0
            self.more()
        else:
            self._failed(failure, began)

    def _failed(self, error: Exception, began: float) -> None:
        now = monotonic()
        if self._failures == 0:
            self._failing_since = now
        self._failures += 1
        log.debug("opening a connection failed (%d in a row): %s", self._failures, error)
        if self._demand.refused(error, began):
            self.more(called=True)
        elif self._demand.alone() and now - self._failing_since > self._patience:
            self._failures = 0
            self._gave_up = True  # the next caller makes us try again
        elif self._pause is None:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10))
            # Jitter: the processes of one service lose their server in the same moment.
            pause *= random.uniform(0.5, 1.0)  # noqa: S311
            self._pause = asyncio.get_running_loop().call_later(pause, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self.more()

    def stop(self) -> None:
        """Begin no more, and break off what is under way."""
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for task in list(self._tasks):
            task.cancel()
