"""A transaction on one connection, used by one task at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from isthmus._executor import Page, PageRequest
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.driver import Connection
from isthmus.backends.postgres.errors import WRITING
from isthmus.backends.postgres.executor import PostgresExecutor
from isthmus.backends.postgres.snapshots import Snapshots
from isthmus.backends.postgres.table import Table


class PostgresTransaction(PostgresExecutor):
    """The verbs inside one transaction; calls of several tasks queue."""

    def __init__(self, config: PostgresConfig, tables: dict[str, Table], connection: Connection) -> None:
        super().__init__(config, tables)
        self._snapshots = Snapshots()
        self.connection = connection
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def _turns(self) -> AsyncIterator[Connection]:
        async with self._turn:
            yield self.connection

    def _reading(self) -> AbstractAsyncContextManager[Connection]:
        return self._turns()

    def _writing(self) -> AbstractAsyncContextManager[Connection]:
        return self._turns()

    async def _consistent(self, table: Table, request: PageRequest) -> Page:
        async with self._turn:
            if request.after:
                return await self._snapshots.more(request.after[0], request.size)
            return await self._snapshots.first_within(self.connection, table, request)

    async def _release(self, token: int) -> None:
        async with self._turn:
            await self._snapshots.release(token)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a savepoint: leaving by an exception undoes what was done since."""
        savepoint = self.connection.transaction()
        with WRITING:
            async with self._turn:
                await savepoint.start()
        try:
            yield
        except BaseException:
            async with self._turn:
                await savepoint.rollback()
            raise
        with WRITING:
            async with self._turn:
                await savepoint.commit()
