"""The interface between a PostgreSQL driver and the rest of the backend."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from isthmus.backends.postgres.address import Address

Row: TypeAlias = Any
"""Columns by position; asyncpg's rows by name too."""
Rows: TypeAlias = "Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]]"


class DriverTransaction(Protocol):
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
        """Roll back, or roll back to the savepoint."""
        ...


class Cursor(Protocol):
    """A server-side cursor inside a transaction."""

    async def fetch(self, n: int, *, timeout: float | None = None) -> list[Row]:
        """Return the next rows, at most `n`."""
        ...


class Connection(Protocol):
    """One session, with the methods of asyncpg: `$1` placeholders, jsonb as text, timeouts in seconds.

    Used by one task at a time. A call that is cancelled or timed out leaves the session to the
    pool, which cancels the statement and checks the session before its next use.
    """

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Run one statement, or without arguments several; return the last status, such as `INSERT 0 1`."""
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

    def cursor(self, query: str, *args: Any) -> Awaitable[Cursor]:
        """Return a server-side cursor; needs a transaction."""
        ...

    def transaction(self, *, isolation: Any = None, readonly: bool = False) -> DriverTransaction:
        """Return a transaction, or inside of one a savepoint; isolation such as `repeatable_read`."""
        ...

    def is_in_transaction(self) -> bool:
        """Return whether a transaction is open, a failed one included."""
        ...

    def is_closed(self) -> bool:
        """Return whether the session is known to be over; no I/O."""
        ...


class Driver(Protocol):
    """Opens, inspects, resets and closes the connections of one pool."""

    name: str
    interface_error: type[Exception]
    """What the driver raises where it is used in a wrong way, as on a closed pool."""
    on_schema_change: Callable[[], None]
    """Called when a table changed under the statements that connections have prepared."""

    async def open(self, address: Address, attrs: str) -> Any:
        """Open a session with one host.

        Raises the driver's errors, and `WrongServerError` if the server lacks the session attributes.
        """
        ...

    def without_codecs(self, connection: Any) -> Connection:
        """Return the session with the driver's own codecs, whatever a hook has registered; no I/O."""
        ...

    def is_ready(self, connection: Any) -> bool:
        """Return whether the session can be used at once: alive, idle, outside of a transaction; no I/O."""
        ...

    def is_alive(self, connection: Any) -> bool:
        """Return whether the session is not known to be over; no I/O."""
        ...

    def is_standby(self, connection: Any) -> bool | None:
        """Return whether the server reported that it is a standby; None if it did not (before 14)."""
        ...

    async def settle(self, connection: Any) -> None:
        """Wait until a cancelled statement has ended, and roll back an open transaction."""
        ...

    async def reset(self, connection: Any) -> None:
        """Settle, and undo all that raw SQL can have done to the session."""
        ...

    async def in_recovery(self, connection: Any, timeout: float) -> bool:
        """Return whether the server is a standby, by one round trip within `timeout` seconds."""
        ...

    async def commit(self, connection: Any, transaction: DriverTransaction) -> bool:
        """Commit; return False if the server rolled back, because an earlier statement had failed."""
        ...

    def lend(self, connection: Any) -> Any:
        """Return a proxy for a user of the native client, which works until `take_back`."""
        ...

    def take_back(self, lent: Any) -> tuple[Any, bool]:
        """Disable a proxy; return its connection (None the second time), and whether a reset is enough."""
        ...

    async def close(self, connection: Any, timeout: float) -> None:
        """Close the session in order within `timeout` seconds; drop the socket if that fails."""
        ...

    def terminate(self, connection: Any) -> None:
        """Drop the socket without waiting."""
        ...

    def discard(self, connection: Any) -> None:
        """Drop the socket without a warning although the loop may be dead."""
        ...

    def set_connect_args(self, **arguments: Any) -> None:
        """Override arguments of the driver's `connect` for future connections."""
        ...
