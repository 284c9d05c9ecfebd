"""Transactions that are driven step by step, where a step may wait for another transaction."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from isthmus import AsyncDatabase, IsthmusError, Transaction

Step: TypeAlias = Callable[[Transaction], Awaitable[Any]]

PATIENCE = 0.3
"""Seconds after which a step that has not ended is taken to wait for another transaction."""
_ENOUGH = 20.0
"""Seconds after which a transaction that should end is an error of the test."""


class _RollBack(Exception):
    """Ends an actor's transaction."""


class Actor:
    """One transaction in a task of its own; its steps run in order, and none after one that failed."""

    def __init__(self, db: AsyncDatabase, level: str) -> None:
        self._db = db
        self._level = level
        self._steps: asyncio.Queue[tuple[Step | None, asyncio.Future[Any]]] = asyncio.Queue()
        # A context of its own: the transactions of a test are those of different users.
        self._task = asyncio.create_task(self._run(), context=contextvars.Context())
        self.results: list[Any] = []
        self.error: IsthmusError | None = None

    async def do(self, step: Step) -> None:
        """Run a step, and wait until it has ended or is taken to wait for another transaction."""
        await self._add(step)

    async def commit(self) -> None:
        """End the transaction, or begin to."""
        await self._add(None)

    async def roll_back(self) -> None:
        """Undo the transaction."""

        async def step(tx: Transaction) -> None:
            raise _RollBack

        await self._add(step)

    async def committed(self) -> bool:
        """Wait for the transaction's end and return whether it committed."""
        async with asyncio.timeout(_ENOUGH):
            await self._task
        return self.error is None

    async def _add(self, step: Step | None) -> None:
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._steps.put_nowait((step, ended))
        await asyncio.wait([ended, self._task], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)

    async def _run(self) -> None:
        last: asyncio.Future[Any] | None = None
        try:
            async with self._db.transaction(isolation=self._level) as tx:
                while True:
                    step, ended = await self._steps.get()
                    if step is None:
                        last = ended
                        break
                    self.results.append(await step(tx))
                    ended.set_result(None)
        except _RollBack:
            pass
        except IsthmusError as error:
            self.error = error
        if last is not None:
            last.set_result(None)
