"""Followers of a program: its changes, applied to an empty store in memory, must make the same content."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from isthmus import AsyncDatabase, Change, Record
from isthmus._changes_declaration import declare_changes
from isthmus._values import same

# Seconds: no other test has a transaction open for so long.
_DELAY = 30.0


class Follower:
    """A copy of a database's collection that only its changes have made."""

    def __init__(self, db: AsyncDatabase) -> None:
        self._db = db
        self._copy = AsyncDatabase("memory", {})
        self._orders: dict[str, int] = {}
        self._position = "start"
        self._problem: Any = None

    async def begin(self) -> None:
        """Let the collection, which is empty, keep changes."""
        await declare_changes(self._db)
        await self._copy.connect()

    async def follow(self, step: int) -> None:
        """Apply what has changed, not after every step: so that changes of several steps come together."""
        if step % 3 == 0:
            await self._apply_changes()

    async def difference(self) -> tuple[Any, Any] | None:
        """Return the content as it should be and as it is, or what is wrong with a change, or None.

        On PostgreSQL an open transaction of any other test on the server delays changes: they are waited for.
        """
        end = time.monotonic() + _DELAY
        while True:
            await self._apply_changes()
            if self._problem is not None:
                return self._problem  # type: ignore[no-any-return]
            expected, actual = [
                [[record.id, record.data, record.metadata] for record in await db.search()]
                for db in (self._db, self._copy)
            ]
            if same(expected, actual) or time.monotonic() > end:
                break
            await asyncio.sleep(0.05)
        await self._copy.close()
        return None if same(expected, actual) else (expected, actual)

    async def _apply_changes(self) -> None:
        # A new stream each time, as after a restart.
        async with self._db.changes(since=self._position) as stream:
            while changes := await stream.read(wait=False):
                for change in changes:
                    await self._apply(change)
            self._position = stream.position or self._position

    async def _apply(self, change: Change[Record]) -> None:
        order, before = change.order, self._orders.get(change.id, -1)
        if order is None or order < before:
            self._problem = (f"an order of {change.id!r} of at least {before}", order)
            return
        self._orders[change.id] = order
        if change.record is None:
            await self._copy.delete(change.id)
        else:
            await self._copy.upsert(change.id, change.record)
