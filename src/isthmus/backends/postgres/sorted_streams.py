"""Sorted streams in one pass: a cursor that is kept between pages for as long as nobody needs its connection.

Without a cursor each page would cost a sort of all that follows. A cursor holds a connection, and the
reader of a stream may need one for what it does with each record. So the connection is given up when
somebody waits for one and the pool can open no more, and when the reader takes long; the next page then
begins at the last record, as pages without a cursor do, with a cursor of its own.
"""

from __future__ import annotations

import asyncio
import logging

from isthmus._core.executor import After, Page, PageRequest
from isthmus._core.offload import compile_statement
from isthmus._ids import new_version
from isthmus._value import replace
from isthmus.backends.postgres.cursors import MAX_PAGE, PoolSnapshot, RowSource
from isthmus.backends.postgres.drivers.protocol import Cursor
from isthmus.backends.postgres.pool.pool import Pool

log = logging.getLogger("isthmus.postgres")

# Seconds between two pages after which the connection is given up: an open snapshot delays vacuuming.
HOLD_SECONDS = 10.0


class _KeptCursor:
    """A cursor with its snapshot and the pool's right to take the connection back."""

    def __init__(
        self, streams: SortedStreams, token: int, pool: Pool, snapshot: PoolSnapshot, source: RowSource
    ) -> None:
        self._streams = streams
        self._token = token
        self._pool = pool
        self._snapshot = snapshot
        self._source = source
        self._timer: asyncio.TimerHandle | None = None
        self._is_wanted = False
        self._is_fetching = True
        self.cursor: Cursor
        pool.queue.reclaimable[token] = self.reclaim

    def reclaim(self) -> None:
        """Give the connection up: at once, or at the end of the page that is under way."""
        self._is_wanted = True
        if not self._is_fetching:
            self.give_up()

    def give_up(self) -> None:
        """Return the connection; the pool rolls back the snapshot in the background."""
        self._forget()
        self._pool.release(self._snapshot.connection)

    def _forget(self) -> None:
        self._streams.kept.pop(self._token, None)
        self._pool.queue.reclaimable.pop(self._token, None)
        if self._timer is not None:
            self._timer.cancel()

    async def end(self, error: BaseException | None = None) -> None:
        """Leave the snapshot in order."""
        self._forget()
        await self._snapshot.__aexit__(
            None if error is None else type(error), error, None if error is None else error.__traceback__
        )

    async def fetch(self, size: int) -> Page:
        """Return the next records; the page has a token if the cursor is kept for more."""
        if self._timer is not None:
            self._timer.cancel()
        self._is_fetching = True
        try:
            rows = await self.cursor.fetch(size)
        except BaseException as error:
            await self.end(error)
            raise
        self._is_fetching = False
        records = self._source.wrap(rows)
        if len(rows) < size:
            await self.end()
            return Page(records, None)
        # Somebody may have begun to wait before this cursor was there to be reclaimed.
        if self._is_wanted or self._pool.queue.is_stuck:
            self.give_up()
            return Page(records, After())
        self._timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self.reclaim)
        return Page(records, After(token=self._token))


class SortedStreams:
    """The cursors that one loop keeps, by token."""

    def __init__(self) -> None:
        self.kept: dict[int, _KeptCursor] = {}

    async def fetch(self, pool: Pool, source: RowSource, request: PageRequest) -> Page:
        """Return one page: from the stream's cursor, or from a new one after the request's position."""
        after, size = request.after, request.size_up_to(MAX_PAGE)
        kept = self.kept.get(after.token) if after is not None else None
        if kept is not None:
            try:
                return await kept.fetch(size)
            except TimeoutError:
                raise
            except Exception as error:  # the driver's: the connection of a snapshot can end between pages
                log.debug("a sorted stream goes on with another cursor: %s", error)
        return await (await self._open(pool, source, request)).fetch(size)

    async def _open(self, pool: Pool, source: RowSource, request: PageRequest) -> _KeptCursor:
        whole = replace(request, size=None)
        statement = await compile_statement(request.where, lambda: source.select(whole))
        snapshot = PoolSnapshot(pool)
        connection = await snapshot.__aenter__()
        token = new_version()
        kept = self.kept[token] = _KeptCursor(self, token, pool, snapshot, source)
        try:
            kept.cursor = await connection.cursor(statement.text, *statement.args)
        except BaseException as error:
            await kept.end(error)
            raise
        return kept

    async def release(self, token: int) -> None:
        """End a stream that is left early; does nothing if its connection was given up."""
        kept = self.kept.get(token)
        if kept is not None:
            await kept.end()

    def give_up(self) -> None:
        """Give up all connections; a page that is under way gives its own up when it ends."""
        for kept in list(self.kept.values()):
            kept.reclaim()
