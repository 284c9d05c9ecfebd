"""For users who run SQL themselves: asyncpg's methods on the pool that isthmus uses, or in a transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from isthmus._core.executor import PoolStats
from isthmus.backends.postgres.drivers.protocol import Row, Rows
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.backends.postgres.pool.pooled_connection import RELEASED, Released
from isthmus.errors import ClosedError, IsthmusError, TransactionError


class NativeCheckout:
    """A pending checkout: await it for a connection, or enter it to release on exit."""

    __slots__ = ("_lent", "_pool", "_timeout")

    def __init__(self, pool: NativePool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._lent: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._pool._lend(self._timeout).__await__()

    async def __aenter__(self) -> Any:
        self._lent = await self._pool._lend(self._timeout)
        return self._lent

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lent, self._lent = self._lent, None
        self._pool._take_back(lent, error)


class NativeStatements(ABC):
    """asyncpg's methods that run a statement, each on a connection that is checked out for it."""

    __slots__ = ()

    @abstractmethod
    def _checkout(self) -> AbstractAsyncContextManager[Any]:
        """Return a context that enters a connection."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Run a statement, or without arguments several; return the last status."""
        async with self._checkout() as connection:
            return str(await connection.execute(query, *args, timeout=timeout))

    async def executemany(
        self, command: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None:
        """Run a statement for each sequence of arguments, all or nothing."""
        async with self._checkout() as connection:
            await connection.executemany(command, args, timeout=timeout)

    async def fetch(
        self, query: str, *args: Any, timeout: float | None = None, record_class: type | None = None
    ) -> list[Row]:
        """Return all rows; `record_class` is for asyncpg only."""
        async with self._checkout() as connection:
            return list(
                await connection.fetch(query, *args, timeout=timeout, **_record_options(record_class))
            )

    async def fetchrow(
        self, query: str, *args: Any, timeout: float | None = None, record_class: type | None = None
    ) -> Row | None:
        """Return the first row or None; `record_class` is for asyncpg only."""
        async with self._checkout() as connection:
            return await connection.fetchrow(query, *args, timeout=timeout, **_record_options(record_class))

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """Return one column of the first row or None."""
        async with self._checkout() as connection:
            return await connection.fetchval(query, *args, column=column, timeout=timeout)

    async def fetchmany(
        self,
        query: str,
        args: Iterable[Sequence[Any]],
        *,
        timeout: float | None = None,
        record_class: type | None = None,
    ) -> list[Row]:
        """Run a statement for each sequence of arguments; return all their rows."""
        async with self._checkout() as connection:
            rows = await connection.fetchmany(query, args, timeout=timeout, **_record_options(record_class))
            return list(rows)

    async def copy_records_to_table(self, table_name: str, *, records: Rows, **options: Any) -> str:
        """COPY rows into a table; options are asyncpg's: columns, schema_name, timeout, where."""
        async with self._checkout() as connection:
            return str(await connection.copy_records_to_table(table_name, records=records, **options))

    async def copy_to_table(self, table_name: str, *, source: Any, **options: Any) -> str:
        """COPY the bytes of a path, a file or an async iterable into a table."""
        async with self._checkout() as connection:
            return str(await connection.copy_to_table(table_name, source=source, **options))

    async def copy_from_table(self, table_name: str, *, output: Any, **options: Any) -> str:
        """COPY a table to a path, a file or a coroutine function that takes bytes."""
        async with self._checkout() as connection:
            return str(await connection.copy_from_table(table_name, output=output, **options))

    async def copy_from_query(self, query: str, *args: Any, output: Any, **options: Any) -> str:
        """COPY a query's rows to a path, a file or a coroutine function that takes bytes."""
        async with self._checkout() as connection:
            return str(await connection.copy_from_query(query, *args, output=output, **options))


class Owner(Protocol):
    """The handle that leases the pool."""

    async def close(self) -> None:
        """Release the lease, waiting for connections in use."""
        ...

    def terminate(self) -> None:
        """Release the lease at once."""
        ...


class NativePool(NativeStatements):
    """Connections for raw SQL from the running loop's pool, which the database owns and closes.

    As of asyncpg's pool: `await pool` and `async with pool` return it, `close` and the end of the block
    close the database's handle, and so the pool unless other handles use it. Errors while a connection is
    acquired are of isthmus's class and of the driver's: `PoolTimeoutError` is a `TimeoutError`, a closed
    pool also an `asyncpg.InterfaceError`, a refused password also an `asyncpg.InvalidPasswordError`.

    A connection is an `asyncpg.Connection` (with `driver="psycopg"` an object with asyncpg's methods
    whose `raw` is the `psycopg.AsyncConnection`). After each use the session is reset in the
    background: settings, locks, temporary tables, LISTEN, open transactions.
    """

    __slots__ = ("_is_closed", "_owner", "_pool")

    def __init__(self, pool: Pool, owner: Owner | None = None) -> None:
        self._pool = pool
        self._owner = owner
        self._is_closed = False

    def __await__(self) -> Generator[Any, None, Self]:
        return self._get_self().__await__()

    async def _get_self(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the handle that this pool is of, once connections in use are released. Idempotent."""
        self._is_closed = True
        if self._owner is not None:
            await self._owner.close()

    def terminate(self) -> None:
        """Close the handle at once; what is under way fails. Idempotent."""
        self._is_closed = True
        if self._owner is not None:
            self._owner.terminate()

    # Connections

    def acquire(self, *, timeout: float | None = None) -> NativeCheckout:
        """Return a pending checkout: await it for a connection, or enter it to release on exit.

        Raises `PoolTimeoutError` after `timeout` seconds (None: the config's `pool.timeout`).
        """
        return NativeCheckout(self, timeout)

    def release(self, connection: Any, *, timeout: float | None = None) -> Released:
        """Return a connection; never waits, and may be awaited. Releasing it again does nothing."""
        return self._take_back(connection, None)

    async def _lend(self, timeout: float | None) -> Any:
        try:
            if self._is_closed:
                raise ClosedError("the pool is closed")
            connection = await self._pool.acquire(timeout, dirty=True)
        except IsthmusError as error:
            closed = isinstance(error, ClosedError)
            cause = self._pool.driver.interface_error if closed else type(error.__cause__)
            raise _of_both(error, cause) from error.__cause__
        return self._pool.driver.lend(connection)

    def _take_back(self, lent: Any, error: BaseException | None) -> Released:
        connection, is_resettable = self._pool.driver.take_back(lent)
        if connection is None:
            return RELEASED
        if error is not None:
            self._pool.note_error(connection, error)
        if not is_resettable:
            self._pool.mark_unusable(connection)
        return self._pool.release(connection)

    def _checkout(self) -> NativeCheckout:
        return self.acquire()

    # The pool

    async def expire_connections(self) -> None:
        """Replace all connections: idle ones now, those in use when they are released."""
        self._pool.expire()

    async def drain(self, timeout: float | None = None) -> None:
        """Expire all connections and wait until the old ones are closed; raises `TimeoutError`."""
        await self._pool.drain(timeout)

    def resize(self, min_size: int, max_size: int) -> None:
        """Change how many connections are kept open at least, and may be open at most."""
        self._pool.resize(min_size, max_size)

    def set_connect_args(self, dsn: str | None = None, **connect_kwargs: Any) -> None:
        """Override arguments of the driver's `connect` for future connections."""
        if dsn is not None:
            connect_kwargs["dsn"] = dsn
        self._pool.driver.set_connect_args(**connect_kwargs)

    def is_closing(self) -> bool:
        """Return whether the pool hands out no more connections."""
        return self._is_closed or self._pool.is_closing

    def get_size(self) -> int:
        """Return how many connections are open."""
        return self._pool.stats().size

    def get_min_size(self) -> int:
        """Return how many connections are kept open."""
        return self._pool.stats().min_size

    def get_max_size(self) -> int:
        """Return how many connections may be open."""
        return self._pool.stats().max_size

    def get_idle_size(self) -> int:
        """Return how many connections are idle."""
        return self._pool.stats().idle

    def stats(self) -> PoolStats:
        """Return sizes, counters and times."""
        return self._pool.stats()


def _record_options(record_class: type | None) -> dict[str, type]:
    return {} if record_class is None else {"record_class": record_class}


def _of_both(error: IsthmusError, driver_class: type) -> IsthmusError:
    """Return an error like this one whose class is also the driver's, for programs that expect that."""
    if not issubclass(driver_class, Exception) or isinstance(error, driver_class):
        return error
    made = _class_of_both(type(error), driver_class)
    return error if made is None else made(str(error), transient=error.transient, applied=error.applied)


def _class_of_both(ours: type[IsthmusError], driver_class: type) -> type[IsthmusError] | None:
    try:
        return type(ours.__name__, (ours, driver_class), {"__module__": ours.__module__})
    except TypeError:  # two built-in errors of different layouts
        return None


class TransactionLoan:
    """The connection of a transaction, lent to its user from the first use on until `end`."""

    def __init__(self, pool: Pool, connection: Any) -> None:
        self._pool = pool
        self._connection = connection
        self._lent: Any = None

    @property
    def is_lent(self) -> bool:
        """Whether the user has had the connection."""
        return self._lent is not None

    def lend(self) -> Any:
        """Return the driver's proxy; the session is reset in full after the transaction."""
        if self._lent is None:
            self._pool.held[self._connection].dirty = True
            self._lent = self._pool.driver.lend(self._connection)
        return self._lent

    def end(self) -> None:
        """Disable the proxy."""
        if self._lent is None:
            return
        _, is_resettable = self._pool.driver.take_back(self._lent)
        if not is_resettable:
            self._pool.mark_unusable(self._connection)


class NativeTransaction(NativeStatements):
    """SQL inside a transaction: what it does is committed or rolled back with the records' operations.

    Errors are the driver's. As PostgreSQL has it, after an error every statement is refused: wrap one that
    may fail in `async with tx.savepoint()`.
    """

    __slots__ = ("_lend", "_turn")

    def __init__(
        self, lend: Callable[[], Any], turn: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        self._lend = lend
        self._turn = turn

    @asynccontextmanager
    async def _checkout(self) -> AsyncIterator[Any]:
        async with self._turn():
            connection = self._lend()
            yield connection
            if not connection.is_in_transaction():
                raise TransactionError(
                    "postgres: the SQL has ended the transaction, and what came before is committed or"
                    " rolled back already; leave the block instead, or use tx.savepoint()"
                )
