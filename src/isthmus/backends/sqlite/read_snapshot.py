"""Streams of one snapshot: a connection with an open read transaction, and a cursor in it.

A consistent stream keeps its snapshot to the end. A sorted stream that is not consistent reads by a cursor
too, since each page would cost a sort of all that follows; it gives the connection up when somebody waits
for one and when its reader takes long, and goes on after its last record.
"""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from typing import TYPE_CHECKING, Any

from isthmus._core.closing import CLOSINGS
from isthmus._core.executor import PageRequest
from isthmus._value import replace
from isthmus.backends.sqlite import select
from isthmus.backends.sqlite.executor import run_query
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.session import SQLiteSession

if TYPE_CHECKING:
    from isthmus.backends.sqlite.connection_thread import ConnectionThread
    from isthmus.backends.sqlite.pool import Pool
    from isthmus.errors import IsthmusError

# Seconds between two pages after which a sorted stream gives its connection up: the WAL grows meanwhile.
HOLD_SECONDS = 10.0

# Rows of a page whose request has no size.
MAX_PAGE = 10_000


class ReadSnapshot:
    """A connection with an open read transaction: one state of the database for several requests."""

    def __init__(
        self, pool: Pool, thread: ConnectionThread, owner: object = None, *, private: bool = False
    ) -> None:
        self.token = uuid.uuid4().hex
        self.owner = owner
        """The backend whose stream it is for; None for a transaction."""
        self.thread = thread
        self._pool = pool
        self._private = private
        self._ended = False
        self._cursor: sqlite3.Cursor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_wanted = self._is_fetching = False

    async def fetch(self, table: Table, request: PageRequest) -> list[tuple[Any, ...]]:
        """Return the next rows of a sorted query, which the first call runs; fewer than `size` at the end."""
        size = request.size_up_to(MAX_PAGE)

        def next_rows(session: SQLiteSession, table: Table) -> list[tuple[Any, ...]]:
            if self._cursor is None:
                self._cursor = session.open_cursor(select.page(table, replace(request, size=None)))
            return self._cursor.fetchmany(size)

        if self._timer is not None:
            self._timer.cancel()
        self._is_fetching = True
        try:
            return await self.thread.run(
                lambda session: session.read(lambda same: run_query(same, table, next_rows))
            )
        finally:
            self._is_fetching = False

    def allow_reclaim(self) -> bool:
        """Let the pool take the connection back; return False if somebody waits for it already."""
        readers = self._pool.readers
        if self._is_wanted or readers.is_stuck:
            return False
        readers.reclaimable[self.token] = self._reclaim
        self._timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self._reclaim)
        return True

    def _reclaim(self) -> None:
        self._is_wanted = True
        if not self._is_fetching:  # the end of the page that is under way asks whether it is wanted
            CLOSINGS.finish(self.end(), "isthmus-stream-end")

    async def end(self) -> None:
        """End the transaction and release the connection; may be called twice."""
        if self._ended:
            return
        self._ended = True
        self._pool.forget(self)
        self._pool.readers.reclaimable.pop(self.token, None)
        if self._timer is not None:
            self._timer.cancel()
        if self._private:
            await self.thread.close()
        else:
            await self.thread.run(
                self._finish, done=lambda: self._pool.readers.release(self.thread), shielded=True
            )

    def _finish(self, session: SQLiteSession) -> None:
        if self._cursor is not None:
            self._cursor.close()
        session.rollback()


def begin_reading(session: SQLiteSession) -> None:
    """Begin a read transaction and read something: BEGIN alone takes no snapshot."""
    try:
        session.execute("BEGIN")
        session.retry_busy(lambda: session.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall())
    except sqlite3.Error as error:
        failure: IsthmusError = session.failure(error)
        raise failure from error
