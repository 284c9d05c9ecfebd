"""What the backend and the pool need of a PostgreSQL driver."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import Address, PostgresConfig

# A row: columns by position; asyncpg's are by name too.
Row: TypeAlias = Any
Rows: TypeAlias = "Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]]"


class Transaction(Protocol):
    """A transaction, or inside of another one a savepoint."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    async def start(self) -> None:
        """Begin, or set the savepoint."""
        ...

    async def commit(self) -> None:
        """Commit, or release the savepoint."""
        ...

    async def rollback(self) -> None:
        """Undo what was done since."""
        ...


class Cursor(Protocol):
    """A server-side cursor inside a transaction."""

    async def fetch(self, n: int, *, timeout: float | None = None) -> list[Row]:
        """Return the next rows, at most `n`."""
        ...

    async def fetchrow(self, *, timeout: float | None = None) -> Row | None:
        """Return the next row."""
        ...

    async def forward(self, n: int, *, timeout: float | None = None) -> int:
        """Skip rows; return how many there were."""
        ...


class CursorFactory(Protocol):
    """Awaited it is a `Cursor`; iterated it gives the rows."""

    def __await__(self) -> Any: ...

    def __aiter__(self) -> AsyncIterator[Row]: ...


class Connection(Protocol):
    """One session, as people know it from asyncpg: `$1` placeholders, jsonb as text, per-call timeouts.

    Used by one task at a time. A call that is cancelled or timed out leaves the session to the
    pool, which asks the server to stop and looks at it before anybody else gets it.
    """

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Run one statement, or without arguments several; return the last status, such as `INSERT 0 1`."""
        ...

    async def executemany(
        self, command: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None:
        """Run a statement for each sequence of arguments, all or nothing."""
        ...

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Row]:
        """Return all rows."""
        ...

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Row | None:
        """Return the first row or None."""
        ...

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """Return one column of the first row or None."""
        ...

    async def fetchmany(
        self, query: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> list[Row]:
        """Run a statement for each sequence of arguments; return all their rows."""
        ...

    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Rows,
        columns: Sequence[str] | None = None,
        schema_name: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """COPY rows into a table; the rows may come from a generator. Return `COPY n`."""
        ...

    async def copy_from_table(self, table_name: str, *, output: Any, **options: Any) -> str:
        """COPY a table to a path, a file or a coroutine function that takes bytes."""
        ...

    async def copy_from_query(self, query: str, *args: Any, output: Any, **options: Any) -> str:
        """COPY a query's rows to a path, a file or a coroutine function that takes bytes."""
        ...

    async def copy_to_table(self, table_name: str, *, source: Any, **options: Any) -> str:
        """COPY the bytes of a path, a file or an async iterable into a table."""
        ...

    def cursor(
        self, query: str, *args: Any, prefetch: int | None = None, timeout: float | None = None
    ) -> CursorFactory:
        """Return a server-side cursor; needs a transaction."""
        ...

    def transaction(
        self, *, isolation: Any = None, readonly: bool = False, deferrable: bool = False
    ) -> Transaction:
        """Return a transaction, or inside of one a savepoint; isolation such as `repeatable_read`."""
        ...

    def is_in_transaction(self) -> bool:
        """Return whether a transaction is open, a failed one included."""
        ...

    def is_closed(self) -> bool:
        """Return whether the session is known to be over; no I/O."""
        ...

    async def reset(self, *, timeout: float | None = None) -> None:
        """Roll back and put the session back to what it was when it was new."""
        ...

    def get_server_pid(self) -> int:
        """Return the server process that serves this session."""
        ...


class Driver(Protocol):
    """How a pool opens, judges, mends and closes connections; one driver object serves one pool."""

    name: str
    stale: Callable[[], None]
    """Called when a table changed under the statements that connections have prepared."""

    async def open(self, address: Address, attrs: str) -> Any:
        """Open a session with one host; raises the driver's errors, `WrongServerError` if it does not fit."""
        ...

    def ready(self, connection: Any) -> bool:
        """Return whether the session can be used at once: alive, idle, outside of a transaction; no I/O."""
        ...

    def alive(self, connection: Any) -> bool:
        """Return whether the session is not known to be over; no I/O."""
        ...

    def standby(self, connection: Any) -> bool | None:
        """Return whether the server said that it is a standby; None if it did not say (before 14)."""
        ...

    async def settle(self, connection: Any) -> None:
        """Wait until a cancelled statement has ended, and roll back what is open."""
        ...

    async def reset(self, connection: Any) -> None:
        """Settle, and undo all that raw SQL can have done to the session."""
        ...

    async def in_recovery(self, connection: Any, timeout: float) -> bool:
        """Ask the server whether it is a standby: the cheapest round trip that tells something."""
        ...

    def lend(self, connection: Any) -> Any:
        """Return what a user of the native client gets: the connection, until it is taken back."""
        ...

    def take_back(self, lent: Any) -> tuple[Any, bool]:
        """Make what was lent unusable; return the connection, and whether a reset makes it as new."""
        ...

    async def close(self, connection: Any, timeout: float) -> None:
        """Say goodbye; drop the socket if that fails."""
        ...

    def terminate(self, connection: Any) -> None:
        """Drop the socket without waiting."""
        ...

    def discard(self, connection: Any) -> None:
        """Drop the socket silently although the loop may be dead."""
        ...

    def set_connect_args(self, **arguments: Any) -> None:
        """Override arguments of the driver's `connect` for connections to come."""
        ...


def driver_for(config: PostgresConfig) -> Driver:
    """Return the driver that a config names; raises `MissingExtraError` if it is not installed."""
    if config.driver == "psycopg":
        from isthmus._core.registry import driver

        driver("psycopg", extra="psycopg")
        from isthmus.backends.postgres.drivers.psycopg import PsycopgDriver

        return PsycopgDriver(config)
    from isthmus._core.registry import driver

    driver("asyncpg", extra="postgres")
    from isthmus.backends.postgres.drivers.asyncpg import AsyncpgDriver

    return AsyncpgDriver(config)
