"""Lists the records of one collection page by page; the next page is requested ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from isthmus._record import Record
from isthmus.backends.s3.envelope import parse_record
from isthmus.backends.s3.keys import MARKER, PROBE, is_record_name, record_name, stem_of
from isthmus.backends.s3.layout import report_foreign
from isthmus.backends.s3.transport.protocol import Listed, Listing
from isthmus.backends.s3.transport.requests import Requests

_BEYOND = "/~~~~"


class RecordLister:
    """Yields the names of records under a prefix in order; folders and foreign objects are skipped.

    A nested folder, of another collection for example, costs one request, however full it is.
    """

    def __init__(
        self, requests: Requests, prefix: str, after: str = "", *, end: str | None = None, ties: bool = False
    ) -> None:
        self._requests = requests
        self._prefix = prefix
        self._names: deque[Listed] = deque()
        self._next: asyncio.Task[Listing] | None = None
        self._after: str | None = after
        self._rest: Any = None
        self._end = end
        """Names that sort after this, in its length, are not wanted (`keys.upper_bound`)."""
        self._ties = ties
        self.foreign = 0

    async def take(self, count: int, max_bytes: int, *, at_hand: bool = False) -> list[Listed]:
        """Return up to `count` names; fewer if their bodies exceed `max_bytes`, none at the end.

        With `at_hand`, names of a page that has arrived do not wait for the next page. With `ties`,
        names that only their bodies can order (`keys.stem_of`) are not separated, so there may be more.
        """
        taken: list[Listed] = []
        size = 0
        while await self._fill():
            first = self._names[0]
            full = len(taken) >= count or (bool(taken) and size + first.size > max_bytes)
            if full and not (self._ties and taken and _share_stem(taken[-1].name, first.name)):
                break
            taken.append(self._names.popleft())
            size += first.size
            if at_hand and not self._names and not (self._ties and stem_of(first.name)):
                break
        return taken

    async def _fill(self) -> bool:
        """Make sure that there is a name to take; return False at the end."""
        while not self._names:
            if self._next is None:
                if self._after is None:
                    return False
                self._request_next()
            task, self._next = self._next, None
            assert task is not None
            try:
                listing = await task
            except asyncio.CancelledError:
                task.cancel()
                raise
            self._accept(listing)
        return True

    def _request_next(self) -> None:
        assert self._after is not None
        rest, self._rest = self._rest, None
        self._next = asyncio.ensure_future(self._requests.listing(self._prefix, after=self._after, rest=rest))

    def _accept(self, listing: Listing) -> None:
        folder = ""
        end = self._end
        for found in listing.found:
            name = found.name
            if end is not None and name[: len(end)] > end:
                self._after = None
                return
            if "/" in name:
                folder = name.partition("/")[0]
            elif is_record_name(name):
                self._names.append(found)
            elif name and name != MARKER and not name.startswith(PROBE):
                self._report(name)
        if not listing.more:
            self._after = None
            return
        last = listing.found[-1].name
        if "/" in last:
            last = max(last, folder + _BEYOND, key=str.encode)
        else:
            self._rest = listing.rest
        self._after = last
        self._request_next()

    def _report(self, name: str) -> None:
        self.foreign += 1
        report_foreign(self._prefix + name, "its key is not that of a record")

    def close(self) -> None:
        """Cancel the request that is ahead."""
        if self._next is not None:
            self._next.cancel()
            self._next.add_done_callback(lambda task: None if task.cancelled() else task.exception() and None)
            self._next = None


def _share_stem(one: str, other: str) -> bool:
    stem = stem_of(one)
    return stem is not None and stem == stem_of(other)


def parse_own_record(body: bytes, prefix: str, name: str) -> Record | None:
    """Return the record of an object; None, with a warning, if the object is not the record of its name."""
    record = parse_record(body)
    if record is not None and record.id is not None and record_name(record.id) == name:
        return record
    report_foreign(prefix + name, "its body is not that of a record with this key")
    return None
