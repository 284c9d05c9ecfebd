"""A psycopg 3 connection with the methods of asyncpg that isthmus and its native pool offer.

`$1` placeholders, jsonb as text, statuses, timeouts for each call; rows are tuples that can be read by
column name too. When a call is cancelled psycopg itself cancels the statement and waits for that.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Coroutine, Generator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncRawCursor
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.types.numeric import Int8BinaryDumper

from isthmus.backends.postgres.drivers.copy import CopyMethods
from isthmus.errors import UsageError

T = TypeVar("T")

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECONDS = struct.Struct("!q")


class _JsonText(Loader):
    """json as the server's text, which the backend decodes on demand."""

    format = Format.BINARY

    def load(self, data: Any) -> str:
        return str(data, "utf-8")


class _JsonbText(Loader):
    """jsonb as text, without the version byte in front."""

    format = Format.BINARY

    def load(self, data: Any) -> str:
        return str(data[1:], "utf-8") if data[0] == 1 else str(data, "utf-8")


class _Instant(Loader):
    """timestamptz in UTC, whatever the session's time zone."""

    format = Format.BINARY

    def load(self, data: Any) -> datetime:
        return _EPOCH + timedelta(microseconds=_MICROSECONDS.unpack(data)[0])


def _adapters() -> AdaptersMap:
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_loader("jsonb", _JsonbText)
    adapters.register_loader("json", _JsonText)
    adapters.register_loader("timestamptz", _Instant)
    # One size, so that a statement is prepared once and not once for each width of its numbers.
    adapters.register_dumper(int, Int8BinaryDumper)
    return adapters


class _Context:
    """psycopg's context object: adapters without a connection."""

    connection = None
    adapters = _adapters()


ADAPTERS: AdaptContext = _Context()


class _OwnCursor(AsyncRawCursor[Any]):
    """A cursor that ignores the adapters of its connection."""

    __slots__ = ()

    @property
    def adapters(self) -> AdaptersMap:
        """The adapters that isthmus needs."""
        return ADAPTERS.adapters


class PsycopgRow(tuple[Any, ...]):
    """A row with columns by position and by name."""

    __slots__ = ()
    _indexes: dict[str, int] = {}  # noqa: RUF012

    def __getitem__(self, key: Any) -> Any:
        if key.__class__ is str:
            return tuple.__getitem__(self, self._indexes[key])
        return tuple.__getitem__(self, key)

    def items(self) -> Iterable[tuple[str, Any]]:
        """Return names and values."""
        return zip(self._indexes, self, strict=True)


def _rows(cursor: Any) -> Any:
    names = [column.name for column in cursor.description or ()]
    return type(
        "Row", (PsycopgRow,), {"__slots__": (), "_indexes": {name: i for i, name in enumerate(names)}}
    )


class _ReleasedSession:
    """Takes the place of a session that was released to the pool."""

    def __getattr__(self, name: str) -> Any:
        raise UsageError("this connection has been released to the pool")


RELEASED_SESSION: Any = _ReleasedSession()


class PsycopgConnection(CopyMethods):
    """One session; `raw` is the `psycopg.AsyncConnection`.

    Each call runs in a task of its own, so that it is interrupted at most once: psycopg 3.3
    crashes the interpreter when its wait for a cancelled statement is cancelled again. A cancelled
    caller returns at once; the session is not ready before the server has stopped the statement.
    """

    __slots__ = ("_command_timeout", "_names", "owner", "raw", "running")

    def __init__(
        self,
        raw: psycopg.AsyncConnection[Any],
        command_timeout: float | None,
        owner: PsycopgConnection | None = None,
    ) -> None:
        self.raw = raw
        self.owner = owner
        self.running: set[asyncio.Task[Any]] = set() if owner is None else owner.running
        self._command_timeout = command_timeout
        self._names = 0

    def __repr__(self) -> str:
        return f"<PsycopgConnection of {self.raw!r}>"

    async def call(self, work: Coroutine[Any, Any, T], timeout: float | None) -> T:
        """Run a call on this session in a task of its own, within `timeout` seconds."""
        task = asyncio.get_running_loop().create_task(work, name="isthmus-psycopg")
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        try:
            async with asyncio.timeout(self._command_timeout if timeout is None else timeout):
                return await asyncio.shield(task)
        finally:
            if not task.done():
                task.cancel()

    def new_cursor(self) -> AsyncRawCursor[Any]:
        """Return a cursor that takes `$1` and returns `PsycopgRow`s.

        A user's SQL, on a lent connection, has the adapters that a hook registered; ours has not.
        """
        kind = _OwnCursor if self.owner is None else AsyncRawCursor
        return kind(self.raw, row_factory=_rows)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Run one statement, or without arguments several; return the last status."""
        return await self.call(self._execute(query, args), timeout)

    async def _execute(self, query: str, args: Sequence[Any]) -> str:
        cursor = self.new_cursor()
        if args:
            await cursor.execute(query, args)
        else:
            # The simple protocol accepts several statements and prepares none.
            await cursor.execute(query, prepare=False)
            while cursor.nextset():
                pass
        return cursor.statusmessage or ""

    async def executemany(
        self, command: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None:
        """Run a statement for each sequence of arguments, all or nothing."""
        await self.call(self._many(command, args, returning=False), timeout)

    async def fetchmany(
        self, query: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> list[Any]:
        """Run a statement for each sequence of arguments; return all their rows."""
        return await self.call(self._many(query, args, returning=True), timeout)

    async def _many(self, query: str, args: Iterable[Sequence[Any]], *, returning: bool) -> list[Any]:
        rows: list[Any] = []
        items = list(args)
        if not items:
            return rows
        async with self.transaction():
            cursor = self.new_cursor()
            cursor.format = Format.BINARY
            await cursor.executemany(query, items, returning=returning)
            while returning:
                rows += await cursor.fetchall()
                if not cursor.nextset():
                    break
        return rows

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """Return all rows."""
        return await self.call(self._fetch(query, args), timeout)

    async def _fetch(self, query: str, args: Sequence[Any]) -> list[Any]:
        cursor = self.new_cursor()
        await cursor.execute(query, args, binary=True)
        return [] if cursor.description is None else await cursor.fetchall()

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Any | None:
        """Return the first row or None."""
        return await self.call(self._fetchrow(query, args), timeout)

    async def _fetchrow(self, query: str, args: Sequence[Any]) -> Any | None:
        cursor = self.new_cursor()
        await cursor.execute(query, args, binary=True)
        return None if cursor.description is None else await cursor.fetchone()

    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """Return one column of the first row or None."""
        row = await self.fetchrow(query, *args, timeout=timeout)
        return None if row is None else row[column]

    def cursor(
        self, query: str, *args: Any, prefetch: int | None = None, timeout: float | None = None
    ) -> PsycopgCursor:
        """Return a server-side cursor; needs a transaction."""
        self._names += 1
        return PsycopgCursor(self, f"isthmus_{self._names}", query, args, prefetch or 50, timeout)

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> PsycopgTransaction:
        """Return a transaction, or inside of one a savepoint."""
        words = ["BEGIN"]
        if isolation is not None:
            words.append("ISOLATION LEVEL " + isolation.replace("_", " ").upper())
        words += ["READ ONLY"] * readonly + ["DEFERRABLE"] * deferrable
        self._names += 1
        return PsycopgTransaction(self, " ".join(words), f"isthmus_{self._names}")

    def is_in_transaction(self) -> bool:
        """Return whether a transaction is open, a failed one included."""
        status = self.raw.pgconn.transaction_status
        return status in (TransactionStatus.INTRANS, TransactionStatus.INERROR, TransactionStatus.ACTIVE)

    def is_closed(self) -> bool:
        """Return whether the session is known to be over."""
        return self.raw.closed

    def get_server_pid(self) -> int:
        """Return the server process that serves this session."""
        return self.raw.pgconn.backend_pid


class PsycopgTransaction:
    """A transaction by plain statements; the connection itself is in autocommit mode."""

    __slots__ = ("_begin", "_connection", "_name", "_nested")

    def __init__(self, connection: PsycopgConnection, begin: str, name: str) -> None:
        self._connection = connection
        self._begin = begin
        self._name = name
        self._nested = False

    async def start(self) -> None:
        """Begin, or set the savepoint."""
        self._nested = self._connection.is_in_transaction()
        await self._connection.execute(f"SAVEPOINT {self._name}" if self._nested else self._begin)

    async def commit(self) -> None:
        """Commit, or release the savepoint."""
        await self._connection.execute(f"RELEASE SAVEPOINT {self._name}" if self._nested else "COMMIT")

    async def rollback(self) -> None:
        """Roll back, or roll back to the savepoint."""
        await self._connection.execute(f"ROLLBACK TO SAVEPOINT {self._name}" if self._nested else "ROLLBACK")

    async def __aenter__(self) -> PsycopgTransaction:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.commit()
        elif not self._connection.is_closed():
            await self.rollback()


class PsycopgCursor:
    """A server-side cursor: await it to fetch from it, or iterate over its rows.

    Made by plain statements: the end of the transaction closes it, while psycopg's own cursor has
    to be closed by hand.
    """

    __slots__ = ("_args", "_connection", "_name", "_prefetch", "_query", "_timeout")

    def __init__(
        self,
        connection: PsycopgConnection,
        name: str,
        query: str,
        args: Sequence[Any],
        prefetch: int,
        timeout: float | None,
    ) -> None:
        self._connection = connection
        self._name = name
        self._query, self._args = query, args
        self._prefetch = prefetch
        self._timeout = timeout

    def __await__(self) -> Generator[Any, None, PsycopgCursor]:
        return self._declare().__await__()

    async def _declare(self) -> PsycopgCursor:
        declaration = f"DECLARE {self._name} NO SCROLL CURSOR FOR {self._query}"
        await self._connection.execute(declaration, *self._args, timeout=self._timeout)
        return self

    async def __aiter__(self) -> AsyncIterator[Any]:
        await self._declare()
        while rows := await self.fetch(self._prefetch, timeout=self._timeout):
            for row in rows:
                yield row
        await self._connection.execute(f"CLOSE {self._name}")

    async def fetch(self, n: int, *, timeout: float | None = None) -> list[Any]:
        """Return the next rows, at most `n`."""
        return await self._connection.fetch(f"FETCH FORWARD {int(n)} FROM {self._name}", timeout=timeout)

    async def fetchrow(self, *, timeout: float | None = None) -> Any | None:
        """Return the next row."""
        rows = await self.fetch(1, timeout=timeout)
        return rows[0] if rows else None

    async def forward(self, n: int, *, timeout: float | None = None) -> int:
        """Skip rows; return how many there were."""
        status = await self._connection.execute(f"MOVE FORWARD {int(n)} FROM {self._name}", timeout=timeout)
        return int(status.rpartition(" ")[2])
