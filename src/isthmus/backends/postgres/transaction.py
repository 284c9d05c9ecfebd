"""A transaction on one connection, used by one task at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from isthmus._core.executor import Page, PageRequest
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.cursors import LARGEST_PAGE, Snapshots
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import READING
from isthmus.backends.postgres.executor import PostgresExecutor
from isthmus.backends.postgres.sql.table import Table

R = TypeVar("R")


class PostgresTransaction(PostgresExecutor):
    """The verbs inside one transaction; calls of several tasks queue."""

    def __init__(self, config: PostgresConfig, tables: dict[str, Table], connection: Connection) -> None:
        super().__init__(config, tables)
        self._snapshots = Snapshots()
        self.connection = connection
        self._turn = asyncio.Lock()

    async def _run(self, work: Callable[[Connection], Awaitable[R]], *, writes: bool = False) -> R:
        # Nothing is applied before the commit, so no error here leaves a doubt about that.
        with READING:
            async with self._turn:
                return await work(self.connection)

    async def open(self, collection: str) -> None:
        """Do nothing: tables are made outside of transactions, since their indexes must be."""

    async def _consistent(self, table: Table, request: PageRequest) -> Page:
        with READING:
            async with self._turn:
                if request.after is not None:
                    return await self._snapshots.more(request.after.token, request.size_up_to(LARGEST_PAGE))
                return await self._snapshots.first_within(self.connection, table, request)

    async def _release(self, token: int) -> None:
        with READING:
            async with self._turn:
                await self._snapshots.release(token)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a savepoint: leaving by an exception undoes what was done since."""
        savepoint = self.connection.transaction()
        with READING:
            async with self._turn:
                await savepoint.start()
        try:
            yield
        except BaseException:
            # Where the connection broke there is nothing left to undo, and its error is on the way.
            if not self.connection.is_closed():
                async with self._turn:
                    await savepoint.rollback()
            raise
        with READING:
            async with self._turn:
                await savepoint.commit()
