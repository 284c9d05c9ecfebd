"""Streams: pages asked for one ahead, records given one by one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from isthmus._core.executor import Page, PageRequest
from isthmus._core.op import Fetch, Op, Release
from isthmus._record import Record
from isthmus._value import replace
from isthmus.errors import ClosedError


class RecordStream:
    """Records of a search, a page in memory and the next one on its way.

    Iterate it with `async for`; or `async with db.stream(…) as records`, which also gives back at
    once what the store holds when the loop is left early.
    """

    def __init__(
        self,
        run: Callable[[Op[Any]], Coroutine[Any, Any, Any]],
        collection: str,
        request: PageRequest,
        *,
        limit: int | None,
        ahead: bool,
    ) -> None:
        self._run = run
        self._collection = collection
        self._request = request
        self._left = limit
        self._ahead = ahead
        self._records: deque[Record] = deque()
        self._next: asyncio.Task[Page] | None = None
        self._started = False
        self._more = True

    def __aiter__(self) -> Self:
        if self._started:
            raise ClosedError("a stream runs once; call stream() again")
        self._started = True
        return self

    async def __anext__(self) -> Record:
        while not self._records:
            if not self._more:
                raise StopAsyncIteration
            await self._turn_page()
        return self._records.popleft()

    async def _turn_page(self) -> None:
        request = self._request
        if self._next is not None:
            task, self._next = self._next, None
            try:
                page = await task
            except asyncio.CancelledError:
                task.cancel()
                raise
        elif self._left == 0:
            self._more = False
            return
        else:
            page = await self._run(Fetch(self._collection, replace(request, size=self._next_size())))
        self._records.extend(page.records)
        if self._left is not None:
            self._left -= len(page.records)
        self._more = page.after is not None
        self._request = replace(request, after=page.after, offset=0)
        if self._more and self._left != 0 and self._ahead:
            fetch = Fetch(self._collection, replace(self._request, size=self._next_size()))
            self._next = asyncio.ensure_future(self._run(fetch))
            # One turn of the loop, so that the request is sent before these records are decoded.
            await asyncio.sleep(0)
        elif self._more and self._left == 0:
            await self._let_go()

    def _next_size(self) -> int | None:
        size = self._request.size
        return size if self._left is None else self._left if size is None else min(size, self._left)

    async def _let_go(self) -> None:
        self._more = False
        after = self._request.after
        if after is not None and after.token is not None:
            await self._run(Release(self._collection, after))

    async def aclose(self) -> None:
        """End the stream and give back what it holds at the store."""
        self._records.clear()
        task, self._next = self._next, None
        if task is not None:
            # The page on its way may move the position that is to be released.
            page = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(page, Page):
                self._more = page.after is not None
                self._request = replace(self._request, after=page.after)
        if self._more and self._request.after is not None:
            await self._let_go()
        self._more = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        task = self._next
        if task is not None and not task.done():
            loop = task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
        elif task is not None and not task.cancelled():
            task.exception()  # seen: the loop was left before this page was wanted
