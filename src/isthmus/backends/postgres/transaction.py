"""A transaction on one connection, used by one task at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from isthmus._core.executor import Page, PageRequest
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.cursors import Cursors, RowSource
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import READING, translate
from isthmus.backends.postgres.executor import PostgresExecutor, Work
from isthmus.backends.postgres.sql.row_security import is_active
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import IsthmusError, SerializationError, TransactionError, UnsupportedError

R = TypeVar("R")


class TransactionRunner:
    """Runs work on a transaction's connection; calls of several tasks queue.

    A statement on a missing table would abort the transaction. So before the first use of a collection
    that is not in `ready` its table is looked up, and if it is missing `create_table` is awaited. That
    creates it on another connection: the table stays if the transaction is rolled back.
    """

    def __init__(
        self, connection: Connection, ready: Set[str], create_table: Callable[[Table], Awaitable[None]]
    ) -> None:
        self.connection = connection
        self.lock = asyncio.Lock()
        self._ready = ready
        self._create_table = create_table
        self._looked_up: set[str] = set()
        self._cursors = Cursors()
        self._failure: IsthmusError | None = None

    async def query(self, table: Table | None, work: Work[R], if_missing: R) -> R:
        """Run work that only reads; raises `ConfigError` if the table was dropped since it was opened."""
        return await self.command(table, work)

    async def command(self, table: Table | None, work: Work[R]) -> R:
        """Run work; raises `ConfigError` if the table was dropped since it was opened."""
        try:
            # Nothing is applied before the commit, so every error here leaves nothing applied.
            with READING:
                async with self.lock:
                    if table is not None and table.name not in self._ready:
                        await self._ensure_table(table)
                    return await work(self.connection)
        except IsthmusError as error:
            self._failure = self._failure or error
            raise

    async def check_commit(self, *, lent: bool) -> None:
        """Raise if the transaction has failed although its block goes on: by an error that was caught.

        The server answers COMMIT with a rollback then, which the drivers do not report. It is asked
        only if a statement failed, or if the user ran SQL, whose errors are not seen here.
        """
        if self._failure is None and not lent:
            return
        try:
            with READING:
                await self.connection.fetchval("SELECT 1")
        except TransactionError:
            kind = SerializationError if isinstance(self._failure, SerializationError) else TransactionError
            raise kind(
                "the transaction was rolled back: a statement in it failed, and the error was caught inside;"
                " wrap what may fail in a savepoint"
            ) from self._failure

    async def _ensure_table(self, table: Table) -> None:
        if table.name not in self._looked_up:
            exists = await self.connection.fetchval("SELECT to_regclass($1::text) IS NOT NULL", table.sql)
            if not exists:
                await self._create_table(table)
            self._looked_up.add(table.name)

    async def fetch_consistent(self, table: Table | None, source: RowSource, request: PageRequest) -> Page:
        """Return one page of a cursor in the transaction."""
        return await self.command(
            table,
            lambda connection: self._cursors.fetch(
                lambda: contextlib.nullcontext(connection), source, request
            ),
        )

    async def fetch_sorted(self, table: Table | None, source: RowSource, request: PageRequest) -> Page | None:
        """Return None: a cursor would not see what the transaction writes while the stream is read."""
        return None

    async def release(self, token: int) -> None:
        """Forget a cursor, which the transaction's end closes."""
        await self._cursors.release(token)


class ConnectionTransaction:
    """What the transactions of every layout have: savepoints, and the connection for SQL of the user."""

    def __init__(self, runner: TransactionRunner, lend: Callable[[], Any]) -> None:
        self.lend = lend
        """Returns the driver's connection for SQL of the user."""
        self._connection = runner.connection
        self._lock = runner.lock

    def conflict_of(self, error: Exception) -> SerializationError | None:
        """Return the isthmus error for a serialization failure or a deadlock in SQL of the user."""
        failure = translate(error, writing=False)
        return failure if isinstance(failure, SerializationError) else None

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a savepoint: leaving by an exception rolls back to it."""
        savepoint = self._connection.transaction()
        with READING:
            async with self._lock:
                await savepoint.start()
        try:
            yield
        except BaseException:
            # A broken connection has nothing left to roll back, and its error is being raised.
            if not self._connection.is_closed():
                async with self._lock:
                    await savepoint.rollback()
            raise
        with READING:
            async with self._lock:
                await savepoint.commit()


class PostgresTransaction(PostgresExecutor, ConnectionTransaction):
    """The operations inside one transaction."""

    def __init__(
        self,
        config: PostgresConfig,
        tables: dict[str, Table],
        runner: TransactionRunner,
        lend: Callable[[], Any],
    ) -> None:
        PostgresExecutor.__init__(self, config, tables, runner)
        ConnectionTransaction.__init__(self, runner, lend)

    async def open(self, collection: str) -> None:
        """Do nothing: a collection is made ready at its first use, see `TransactionRunner`."""

    async def require_row_security(self, collection: str) -> None:
        """Raise `UnsupportedError` unless row security binds this connection on a collection's table."""
        table = self._table(collection)
        bound = await self._runner.command(table, lambda connection: connection.fetchval(is_active(table)))
        if not bound:
            raise UnsupportedError(
                f"row security does not bind this role on {table.sql}: run what `isthmus doctor"
                " --row-security` prints, and connect as a role that is neither superuser nor BYPASSRLS",
                capability="row_security",
            )
