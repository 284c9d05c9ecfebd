"""Reads a store in the order of ids, one page ahead, pages sized by bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

import orjson

from isthmus import AsyncDatabase, Collection, Query, QueryError, Record, RecordStream, field
from isthmus._core.clock import Clock
from isthmus.transfer._patience import patient

Store: TypeAlias = "AsyncDatabase | Collection"

LARGEST_PAGE = 5_000
_FIRST_PAGE = 500
_PAGE_BYTES = 4_000_000
_NO_LIMIT = 2**62


def as_range(query: Query, after: str | None = None) -> Query:
    """Return the query for the records whose ids come after one; refuses what ranges cannot have."""
    if query.order or query.skip:
        raise QueryError("a transfer goes by id: its query has no sort and no offset")
    return query if after is None else query.filter(field("_id") > after)


@dataclass(slots=True)
class Part:
    """A page, and the cursor of what comes after it where the store gave one."""

    records: list[Record]
    cursor: str | None = None


class Reader:
    """Pages of a search in the order of ids.

    While one page is used the next is read; two pages are in memory at most. A page is cut to
    about 4 MB by the size of the records seen so far, so large records make small pages.
    """

    def __init__(
        self,
        store: Store,
        query: Query,
        *,
        clock: Clock,
        page_size: int | None = None,
        after: str | None = None,
        cursor: str | None = None,
        already: int = 0,
    ) -> None:
        self._store = store
        self._left = None if query.count is None else max(0, query.count - already)
        # A cursor is the cheaper way to go on: a store that cannot search by id reads from the start.
        self._query = as_range(query, after if cursor is None else None).limit(_NO_LIMIT)
        self._from_id = as_range(query, after).limit(_NO_LIMIT)
        self._clock = clock
        self._largest = page_size or LARGEST_PAGE
        self._size = min(self._largest, _FIRST_PAGE if page_size is None else page_size)
        self._cursor = cursor
        self._more = True
        self._next: asyncio.Task[Part] | None = None
        self._stream: RecordStream | None = None
        self.bytes = 0
        """About how much JSON was read."""

    async def __aenter__(self) -> Self:
        if self._cursor is not None:
            await self._try_cursor()
        if self._left != 0 and not await self._ordered_there():
            # Each page would be a scan of the whole store; one stream is one scan.
            self._stream = aiter(self._store.stream(self._query))
        return self

    async def _try_cursor(self) -> None:
        """Fall back to a search by id if the cursor is no longer good."""
        try:
            await patient(lambda: self._store.page(self._query, size=1, cursor=self._cursor), self._clock)
        except QueryError:  # another cursor_secret than in the run that wrote the journal
            self._query, self._cursor = self._from_id, None

    async def _ordered_there(self) -> bool:
        plan = await patient(lambda: self._store.explain(self._query), self._clock)
        return plan.order_pushed

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._next = self._next, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._stream is not None:
            await self._stream.aclose()

    async def page(self) -> Part:
        """Return the next page, empty at the end, and begin to read the one after it."""
        task, self._next = self._next, None
        part = await (self._read() if task is None else task)
        if part.records and self._more:
            self._next = asyncio.ensure_future(self._read())
        return part

    async def _read(self) -> Part:
        while self._more and self._left != 0:
            size = self._size if self._left is None else min(self._size, self._left)
            records = await self._fetch(size)
            if records:
                self._measure(records)
                return Part(records, self._cursor)
        return Part([])

    async def _fetch(self, size: int) -> list[Record]:
        if self._stream is None:
            page = await patient(
                lambda: self._store.page(self._query, size=size, cursor=self._cursor), self._clock
            )
            self._cursor = page.cursor
            self._more = page.cursor is not None
            return page.records
        records: list[Record] = []
        while len(records) < size:
            try:
                records.append(await anext(self._stream))
            except StopAsyncIteration:
                self._more = False
                break
        return records

    def _measure(self, records: list[Record]) -> None:
        if self._left is not None:
            self._left -= len(records)
        # Every sixteenth will do where finding the size costs encoding.
        known = [len(raw) for raw, _ in (record.raw for record in records) if raw is not None]
        sampled = known or [len(orjson.dumps(record.data)) for record in records[::16]]
        read = sum(sampled) * len(records) // len(sampled)
        self.bytes += read
        fitting = _PAGE_BYTES * len(records) // max(read, 1)
        self._size = max(1, min(self._largest, fitting, self._size * 4))
