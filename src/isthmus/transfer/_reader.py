"""Reads a store in id order, one page ahead, with page sizes that follow the size of the records."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

import orjson

from isthmus import AsyncDatabase, Collection, Query, QueryError, Record, RecordStream, field
from isthmus._core.clock import Clock
from isthmus._core.supports import SortsIds
from isthmus._value import replace
from isthmus.transfer._retry import retry_transient

Store: TypeAlias = "AsyncDatabase | Collection"

MAX_PAGE_SIZE = 5_000
_FIRST_PAGE_SIZE = 500
_PAGE_BYTES = 4_000_000
# Measuring a record costs encoding it, so only every sixteenth is measured.
_SAMPLE_STEP = 16


@dataclass(slots=True)
class SourcePage:
    """A page of records, and the cursor of the next page where the store returned one."""

    records: list[Record]
    cursor: str | None = None


def sorts_ids(store: Store) -> bool:
    """Return whether ids sort otherwise than as texts, such as the numbers of a table's key."""
    support = store._session.executor.support(store.collection_name)
    return isinstance(support, SortsIds)


class PageReader:
    """Reads the result of a query in id order, page by page.

    The next page is read while the current one is processed, so at most two are in memory. Pages
    are kept to about 4 MB of JSON, estimated from the records read so far: large records make small
    pages.

    `page_size` is the largest number of records in a page. `after` is the id to resume after and
    `cursor` the store's cursor at that position; `already_read` is how many records of the query's
    limit earlier runs have read. Raises `QueryError` for a query with a sort or an offset.
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
        already_read: int = 0,
    ) -> None:
        if query.order or query.skip:
            raise QueryError("a transfer reads in id order: its query cannot have a sort or an offset")
        self._store = store
        self._remaining = None if query.count is None else max(0, query.count - already_read)
        query = self._whole = replace(query, count=None)
        self._resumed = query if after is None else query.filter(field("_id") > after)
        # Resuming by cursor is cheaper: a store that cannot filter by id would read from the start.
        self._query = self._resumed if cursor is None else query
        self._clock = clock
        self._max_size = page_size or MAX_PAGE_SIZE
        self._size = min(self._max_size, _FIRST_PAGE_SIZE if page_size is None else page_size)
        self._cursor = cursor
        self._has_more = True
        self._next_page: asyncio.Task[SourcePage] | None = None
        self._stream: RecordStream | None = None
        self.bytes = 0
        """Estimated bytes of JSON read."""

    async def __aenter__(self) -> Self:
        if self._cursor is not None:
            await self._check_cursor()
        if self._remaining != 0:
            plan = await retry_transient(lambda: self._store.explain(self._query), self._clock)
            if self._query is not self._whole and sorts_ids(self._store):
                raise QueryError(
                    "the ids of this store do not sort as texts, so reading cannot go on after one of them;"
                    " keep `cursor_secret` as it was, or begin again"
                )
            if not plan.order_pushed:
                # Each page would scan the whole store; a stream scans it once.
                self._stream = aiter(self._store.stream(self._query))
        return self

    async def _check_cursor(self) -> None:
        """Fall back to a filter by id if the store rejects the cursor."""
        try:
            await retry_transient(
                lambda: self._store.page(self._query, size=1, cursor=self._cursor), self._clock
            )
        except QueryError:  # another cursor_secret than in the run that wrote the journal
            self._query, self._cursor = self._resumed, None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._next_page = self._next_page, None
        if task is not None:
            task.cancel()
        if task is not None or self._stream is not None:
            await self._store._session.ends.run(self._end(task), "isthmus-reader-end")

    async def _end(self, task: asyncio.Task[SourcePage] | None) -> None:
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)
        if self._stream is not None:
            await self._stream.aclose()

    async def page(self) -> SourcePage:
        """Return the next page, empty at the end, and start to read the one after it."""
        task, self._next_page = self._next_page, None
        page = await (self._read() if task is None else task)
        if page.records and self._has_more:
            self._next_page = asyncio.ensure_future(self._read())
        return page

    async def _read(self) -> SourcePage:
        while self._has_more and self._remaining != 0:
            size = self._size if self._remaining is None else min(self._size, self._remaining)
            records = await self._fetch(size)
            if records:
                self._adjust_size(records)
                return SourcePage(records, self._cursor)
        return SourcePage([])

    async def _fetch(self, size: int) -> list[Record]:
        if self._stream is None:
            page = await retry_transient(
                lambda: self._store.page(self._query, size=size, cursor=self._cursor), self._clock
            )
            self._cursor = page.cursor
            self._has_more = page.cursor is not None
            return page.records
        records: list[Record] = []
        while len(records) < size:
            try:
                records.append(await anext(self._stream))
            except StopAsyncIteration:
                self._has_more = False
                break
        return records

    def _adjust_size(self, records: list[Record]) -> None:
        if self._remaining is not None:
            self._remaining -= len(records)
        sizes = [len(raw) for raw, _ in (record.raw for record in records) if raw is not None]
        sizes = sizes or [len(orjson.dumps(record.data)) for record in records[::_SAMPLE_STEP]]
        page_bytes = sum(sizes) * len(records) // len(sizes)
        self.bytes += page_bytes
        fitting = _PAGE_BYTES * len(records) // max(page_bytes, 1)
        self._size = max(1, min(self._max_size, fitting, self._size * 4))
