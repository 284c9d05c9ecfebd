"""The backend: every call runs in a thread, on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from threading import Lock
from typing import TypeVar

import duckdb

from isthmus import errors, spi
from isthmus_duckdb import capabilities
from isthmus_duckdb.config import DuckDBConfig
from isthmus_duckdb.executor import SCHEMA, Connection, Executor

T = TypeVar("T")

# Two connections that create the tables at the same time would conflict.
_opening = Lock()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    # A write has looked for its ids in its snapshot: one that is there all the same was committed since.
    except (duckdb.TransactionException, duckdb.ConstraintException) as error:
        raise errors.SerializationError(f"another transaction came first: {error}") from error
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise errors.UnavailableError(f"DuckDB cannot go on: {error}") from error
    except duckdb.Error as error:
        raise errors.UnexpectedError(f"DuckDB failed: {error}") from error


async def _run_in_thread(
    threads: ThreadPoolExecutor, connection: Connection, work: Callable[[Connection], T]
) -> T:
    """Run blocking work; if cancelled, interrupt it and wait: its connection is free on return."""

    def run() -> T:
        with _translated():
            return work(connection)

    job = threads.submit(run)
    done = asyncio.wrap_future(job)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        if not job.cancel():
            connection.interrupt()
        while not done.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([done])
        raise


def _commit(connection: Connection) -> None:
    try:
        connection.execute("commit")
    except duckdb.IOException as error:
        raise errors.UnexpectedError(
            f"DuckDB failed to commit: {error}", applied=errors.Applied.MAYBE
        ) from error


class DuckDBBackend(Executor):
    """A database; it belongs to no event loop."""

    name = "duckdb"

    def __init__(self, config: DuckDBConfig) -> None:
        super().__init__(capabilities(durable=not config.path.startswith(":memory:")))
        self.default_collection = config.table
        self._path = config.path
        self._database: Connection | None = None
        self._readers = ThreadPoolExecutor(4)
        # Writes queue for one thread: concurrent ones of the same record would conflict.
        self._writer = ThreadPoolExecutor(1)

    async def run(self, work: Callable[[Connection], T], *, write: bool = False) -> T:
        def transact(connection: Connection) -> T:
            connection.execute("begin")
            result = work(connection)
            _commit(connection)
            return result

        with self.native().cursor() as connection:
            if write:
                return await _run_in_thread(self._writer, connection, transact)
            return await _run_in_thread(self._readers, connection, work)

    async def open(self, collection: str) -> None:
        await asyncio.to_thread(self._open, collection)

    def _open(self, collection: str) -> None:
        with _opening, _translated():
            if self._database is None:
                try:
                    database = duckdb.connect(self._path)
                except duckdb.IOException as error:
                    raise errors.ConnectError(f"cannot open {self._path}: {error}") from error
                database.execute(SCHEMA)
                self._database = database
            with self._database.cursor() as connection:
                connection.execute("insert into collections values (?) on conflict do nothing", [collection])

    async def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            # A call that still runs has its own connection to the database.
            await asyncio.to_thread(database.close)

    async def collections(self) -> list[str]:
        sql = "select name from collections union select collection from records order by 1"
        return [name for (name,) in await self.query(sql)]

    async def drop(self, collection: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute("delete from records where collection = ?", [collection])
            connection.execute("delete from collections where name = ?", [collection])

        await self.run(work, write=True)

    @asynccontextmanager
    async def begin(self, options: spi.TransactionOptions) -> AsyncIterator[Transaction]:
        transaction = Transaction(self.capabilities, self.native().cursor())
        try:
            await transaction.query("begin transaction read only" if options.read_only else "begin")
            yield transaction
            await transaction.commit()
        finally:
            await transaction.close()

    def stats(self) -> spi.PoolStats:
        return spi.PoolStats()

    def native(self) -> Connection:
        if self._database is None:
            raise errors.ClosedError("the DuckDB database is closed")
        return self._database


class Transaction(Executor):
    """A snapshot, on a connection and in a thread of its own."""

    def __init__(self, capabilities: spi.Capabilities, connection: Connection) -> None:
        super().__init__(capabilities)
        self._connection = connection
        self._thread = ThreadPoolExecutor(1)
        self._failed = False

    async def run(self, work: Callable[[Connection], T], *, write: bool = False) -> T:
        try:
            return await _run_in_thread(self._thread, self._connection, work)
        except BaseException:
            self._failed = True
            raise

    async def commit(self) -> None:
        # DuckDB rolls back after a failed statement, and its commit reports success all the same.
        if self._failed:
            raise errors.TransactionError("a call in this transaction failed: nothing was written")
        await self.run(_commit)

    async def close(self) -> None:
        """Close the connection, which rolls back what is not committed."""
        closed = asyncio.wrap_future(self._thread.submit(self._connection.close))
        self._thread.shutdown(wait=False)
        await asyncio.shield(closed)

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        raise errors.UnsupportedError("DuckDB has no savepoints", capability="savepoints")
