"""Consistent streams: a cursor in one read-only transaction, held from the first page to the last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from isthmus._core.executor import After, Page, PageRequest
from isthmus._values import new_version
from isthmus.backends.postgres.drivers.protocol import Connection, Cursor, Transaction
from isthmus.backends.postgres.lazy_record import records
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.backends.postgres.sql.select import page
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import ClosedError

LARGEST_PAGE = 10_000


@dataclass(slots=True)
class _Held:
    """One stream's cursor and what it stands on."""

    cursor: Cursor
    connection: Connection
    transaction: Transaction | None
    pool: Pool | None
    loop: asyncio.AbstractEventLoop


class Snapshots:
    """The consistent streams that are open, by token."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}

    async def first(self, pool: Pool, table: Table, request: PageRequest) -> Page:
        """Open a snapshot on a connection of its own and return the first page."""
        connection = await pool.acquire()
        transaction = connection.transaction(isolation="repeatable_read", readonly=True)
        try:
            await transaction.start()
            cursor = await _cursor(connection, table, request)
        except BaseException as error:
            pool.note(connection, error)
            pool.release(connection)
            raise
        return await self._begun(
            _Held(cursor, connection, transaction, pool, asyncio.get_running_loop()), request
        )

    async def first_within(self, connection: Connection, table: Table, request: PageRequest) -> Page:
        """Open a cursor in the transaction that a connection is in and return the first page."""
        cursor = await _cursor(connection, table, request)
        return await self._begun(_Held(cursor, connection, None, None, asyncio.get_running_loop()), request)

    async def _begun(self, held: _Held, request: PageRequest) -> Page:
        token = new_version()
        self._held[token] = held
        return await self.more(token, request.size_up_to(LARGEST_PAGE))

    async def more(self, token: int, size: int) -> Page:
        """Return the next page; after the last one nothing is held."""
        held = self._held.get(token)
        if held is None:
            raise ClosedError("this consistent stream has ended")
        try:
            rows = await held.cursor.fetch(size)
        except BaseException as error:
            if held.pool is not None:
                held.pool.note(held.connection, error)
            self._let_go(token)
            raise
        if len(rows) == size:
            return Page(records(rows), After(token=token))
        await self.release(token)
        return Page(records(rows), None)

    async def release(self, token: int) -> None:
        """Close a stream's cursor and give its connection back."""
        held = self._held.get(token)
        if held is None:
            return
        try:
            if held.transaction is not None:
                await held.transaction.rollback()
        finally:
            self._let_go(token)

    def _let_go(self, token: int) -> None:
        held = self._held.pop(token, None)
        # The pool rolls back what is still open.
        if held is not None and held.pool is not None:
            held.pool.release(held.connection)

    async def close(self) -> None:
        """Give back what streams of this loop still hold; nobody will ask for their next page."""
        here = asyncio.get_running_loop()
        for token, held in list(self._held.items()):
            if held.loop is here:
                await self.release(token)
            else:
                self._held.pop(token, None)


async def _cursor(connection: Connection, table: Table, request: PageRequest) -> Any:
    endless = PageRequest(request.where, request.order, None, None, request.offset, consistent=True)
    statement = page(table, endless)
    return await connection.cursor(statement.text, *statement.args)
