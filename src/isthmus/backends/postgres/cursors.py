"""Consistent streams: a server-side cursor in one snapshot, open from the first page to the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from isthmus._core.executor import After, Page, PageRequest
from isthmus._core.offload import compile_statement
from isthmus._ids import new_version
from isthmus._record import Record
from isthmus.backends.postgres.drivers.protocol import Connection, Cursor, DriverTransaction, Row
from isthmus.backends.postgres.lazy_record import PostgresRecord
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.backends.postgres.sql.select import select_page
from isthmus.backends.postgres.sql.statement import Statement
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import ClosedError

MAX_PAGE = 10_000
"""Rows of a page whose request has no size."""

Snapshot = AbstractAsyncContextManager[Connection]


@dataclass(frozen=True, slots=True)
class RowSource:
    """How rows of a collection are selected, and the records that they are."""

    select: Callable[[PageRequest], Statement]
    wrap: Callable[[Sequence[Row]], list[Record]]


def source_of(table: Table) -> RowSource:
    """Return the rows of a table of isthmus."""
    return RowSource(partial(select_page, table), PostgresRecord.wrap)


class PoolSnapshot:
    """A connection checked out for the length of one read-only snapshot."""

    # A class, not a generator: one that is never left has nothing for a closed loop to finish.

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.connection: Connection
        self._transaction: DriverTransaction

    async def __aenter__(self) -> Connection:
        self.connection = await self._pool.acquire()
        self._transaction = self.connection.transaction(isolation="repeatable_read", readonly=True)
        try:
            await self._transaction.start()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self._pool.driver.without_codecs(self.connection)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._transaction.rollback()
            else:  # the pool rolls back, in the background
                self._pool.note_error(self.connection, error)
        finally:
            self._pool.release(self.connection)

    def give_up(self) -> None:
        """Have the pool close the connection, in the background; a page that is under way fails."""
        self._pool.mark_unusable(self.connection)
        self._pool.release(self.connection)


@dataclass(slots=True)
class _Stream:
    cursor: Cursor
    snapshot: Snapshot


class Cursors:
    """The open consistent streams of one loop or of one transaction, by token."""

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}
        self._is_closed = False

    async def fetch(self, snapshot: Callable[[], Snapshot], source: RowSource, request: PageRequest) -> Page:
        """Return one page; the first one enters a snapshot, which is left after the last one.

        Raises `ClosedError` for a stream that has ended.
        """
        size = request.size_up_to(MAX_PAGE)
        after = request.after
        token = await self._open(snapshot(), source, request) if after is None else after.token
        stream = self._streams.get(token)
        if stream is None:
            raise ClosedError("this consistent stream has ended")
        try:
            rows = await stream.cursor.fetch(size)
        except BaseException as error:
            # Else the handle was closed meanwhile, and has left the snapshot.
            if self._streams.pop(token, None) is not None:
                await stream.snapshot.__aexit__(type(error), error, error.__traceback__)
            raise
        if len(rows) < size:
            await self.release(token)
            return Page(source.wrap(rows), None)
        return Page(source.wrap(rows), After(token=token))

    async def _open(self, snapshot: Snapshot, source: RowSource, request: PageRequest) -> int:
        everything = PageRequest(request.where, request.order, None, None, request.offset, consistent=True)
        statement = await compile_statement(request.where, lambda: source.select(everything))
        connection = await snapshot.__aenter__()
        try:
            cursor = await connection.cursor(statement.text, *statement.args)
            if self._is_closed:
                raise ClosedError("the handle was closed while this stream began")
        except BaseException as error:
            await snapshot.__aexit__(type(error), error, error.__traceback__)
            raise
        token = new_version()
        self._streams[token] = _Stream(cursor, snapshot)
        return token

    async def release(self, token: int) -> None:
        """Leave the snapshot of a stream; does nothing if the stream has ended."""
        stream = self._streams.pop(token, None)
        if stream is not None:
            await stream.snapshot.__aexit__(None, None, None)

    def give_up(self) -> None:
        """Give all connections back; a page may be under way, so that they cannot be rolled back here."""
        self._is_closed = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            if isinstance(stream.snapshot, PoolSnapshot):
                stream.snapshot.give_up()
