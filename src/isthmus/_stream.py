"""Streams: pages requested one ahead, records yielded one by one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import Self

from isthmus._core.executor import Page, PageRequest
from isthmus._core.op import Fetch, Release
from isthmus._record import Record
from isthmus._session import Session
from isthmus._value import replace
from isthmus.errors import ClosedError


class RecordStream:
    """The records of a search, one page in memory and the next one requested.

    Iterate it with `async for`; or use `async with db.stream(…) as records`, which also releases the
    store's resources at once when the loop is left early.
    """

    def __init__(
        self,
        session: Session,
        collection: str,
        request: PageRequest,
        *,
        limit: int | None,
        largest_page: int = 0,
    ) -> None:
        self._session = session
        self._collection = collection
        self._request = request
        self._remaining = limit
        self._largest_page = largest_page
        self._records: deque[Record] = deque()
        self._next: asyncio.Task[Page] | None = None
        self._started = False
        self._more = True
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop of the first page."""

    def __aiter__(self) -> Self:
        if self._started:
            raise ClosedError("a stream runs once; call stream() again")
        self._started = True
        return self

    async def __anext__(self) -> Record:
        while not self._records:
            if not self._more:
                raise StopAsyncIteration
            await self._load_page()
        return self._records.popleft()

    async def _load_page(self) -> None:
        request = self._request
        self._loop = asyncio.get_running_loop()
        if self._next is None and self._remaining == 0:
            self._more = False
            return
        if self._next is None:
            self._next = self._start_fetch(request)
        # Shielded and kept: a caller that is cancelled leaves the page to `aclose`, which must know
        # the token that it brings.
        page = await asyncio.shield(self._next)
        self._next = None
        records = page.records if self._remaining is None else page.records[: self._remaining]
        self._records.extend(records)
        if self._remaining is not None:
            self._remaining -= len(records)
        self._more = page.after is not None
        self._request = replace(request, after=page.after, offset=0, size=self._grow(request.size))
        if self._more and self._remaining != 0 and self._session.prefetch:
            self._next = self._start_fetch(self._request)
        elif self._more and self._remaining == 0:
            await self._session.ends.run(self._release(), "isthmus-stream-end")
        # One iteration of the loop, so that the next request is sent before these records are decoded;
        # and what has woken this task holds the whole page until the task waits again.
        del page, records
        await asyncio.sleep(0)

    def _start_fetch(self, request: PageRequest) -> asyncio.Task[Page]:
        task = asyncio.get_running_loop().create_task(self._session.run(self._op(request)))
        # A stream may be left before this page is needed, and then its error is nobody's.
        task.add_done_callback(_mark_retrieved)
        return task

    def _op(self, request: PageRequest) -> Fetch:
        return Fetch(self._collection, replace(request, size=self._next_size()))

    def _grow(self, size: int | None) -> int | None:
        """Return the size of the next page: twice that of the last one, up to the largest."""
        return size if size is None else max(size, min(2 * size, self._largest_page))

    def _next_size(self) -> int | None:
        size = self._request.size
        return (
            size
            if self._remaining is None
            else self._remaining
            if size is None
            else min(size, self._remaining)
        )

    @property
    def _holds_something(self) -> bool:
        """Whether a page is under way, or the store keeps something for the next one."""
        after = self._request.after
        return self._next is not None or (self._more and after is not None and after.token is not None)

    async def _release(self) -> None:
        after = self._request.after
        self._more = False
        if after is not None and after.token is not None:
            await self._session.run(Release(self._collection, after))

    async def aclose(self) -> None:
        """End the stream and release what it holds at the store.

        The end survives any number of cancellations of its caller.
        """
        self._records.clear()
        if self._holds_something:
            await self._session.ends.run(self._end(), "isthmus-stream-end")
        self._more = False

    async def _end(self) -> None:
        task, self._next = self._next, None
        if task is not None:
            after = self._request.after
            if after is not None and after.token is None:
                task.cancel()  # nothing is kept for this stream, so the page need not arrive
            # The page under way may bring the token that is to be released.
            page = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(page, Page):
                self._more = page.after is not None
                self._request = replace(self._request, after=page.after)
        if self._more:
            await self._release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        """End a stream that was left without `aclose`, on its own loop."""
        loop = self._loop
        if loop is None or not self._holds_something:
            return
        # The callback keeps this object alive until the end has run.
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._end_in_background)

    def _end_in_background(self) -> None:
        self._session.ends.finish(self._end(), "isthmus-stream-end")


def _mark_retrieved(task: asyncio.Task[Page]) -> None:
    if not task.cancelled():
        task.exception()
