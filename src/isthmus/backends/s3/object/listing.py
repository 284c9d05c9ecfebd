"""A listing of one collection's records, page by page, the next page asked for ahead."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from isthmus._record import Record
from isthmus.backends.s3.envelope import parse_record
from isthmus.backends.s3.keys import MARKER, cut_of, is_record_name, record_name
from isthmus.backends.s3.transport.protocol import Listed, Listing
from isthmus.backends.s3.transport.requests import Requests

logger = logging.getLogger("isthmus.s3")

_BEYOND = "/~~~~"
_RESERVED = {MARKER}


class Lister:
    """Gives the records' names under a place in order, skipping folders and foreign objects.

    A nested folder (another collection, or anybody's) is left by one jump, not read through.
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
        """What names beyond the wanted ones are beyond (`keys.end_at`)."""
        self._ties = ties
        self.foreign = 0

    async def take(self, count: int, max_bytes: int, *, at_hand: bool = False) -> list[Listed]:
        """Return up to so many, fewer only at the end or where their bodies are large; none at the end.

        With `at_hand`, what a page gave is not kept waiting for the next page. With `ties`, names
        whose ids tie (`keys.cut_of`) are not parted, so there may be more.
        """
        taken: list[Listed] = []
        size = 0
        while await self._fill():
            first = self._names[0]
            full = len(taken) >= count or (bool(taken) and size + first.size > max_bytes)
            if full and not (self._ties and taken and _share_cut(taken[-1].name, first.name)):
                break
            taken.append(self._names.popleft())
            size += first.size
            if at_hand and not self._names and not (self._ties and cut_of(first.name)):
                break
        return taken

    async def _fill(self) -> bool:
        """Make sure that a name is at hand; False at the end."""
        while not self._names:
            if self._next is None:
                if self._after is None:
                    return False
                self._ask()
            task, self._next = self._next, None
            assert task is not None
            try:
                listing = await task
            except asyncio.CancelledError:
                task.cancel()
                raise
            self._keep(listing)
        return True

    def _ask(self) -> None:
        assert self._after is not None
        rest, self._rest = self._rest, None
        self._next = asyncio.ensure_future(self._requests.listing(self._prefix, after=self._after, rest=rest))

    def _keep(self, listing: Listing) -> None:
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
            elif name and name not in _RESERVED:
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
        self._ask()

    def _report(self, name: str) -> None:
        self.foreign += 1
        report_foreign(self._prefix + name, "its key is not that of a record")

    def close(self) -> None:
        """Stop asking ahead."""
        if self._next is not None:
            self._next.cancel()
            self._next.add_done_callback(lambda task: None if task.cancelled() else task.exception() and None)
            self._next = None


def _share_cut(left: str, right: str) -> bool:
    cut = cut_of(left)
    return cut is not None and cut == cut_of(right)


_reported: set[str] = set()


def parse_own_record(body: bytes, prefix: str, name: str) -> Record | None:
    """Return the record of an object; None, reported, if it is not the one that its name says."""
    record = parse_record(body)
    if record is not None and record.id is not None and record_name(record.id) == name:
        return record
    report_foreign(prefix + name, "its body is not that of a record with this key")
    return None


def report_foreign(key: str, why: str) -> None:
    """Say once that an object is left alone."""
    if key not in _reported and len(_reported) < 10_000:
        _reported.add(key)
        logger.warning("the object %r is left alone: %s", key, why)
