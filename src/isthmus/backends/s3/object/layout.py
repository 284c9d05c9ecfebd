"""Layout `object`: one readable JSON object per record, in the order of ids."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence

from isthmus._core.executor import MORE, After, ItemResult, Mutation, Page, PageRequest, WriteKind
from isthmus._core.offload import Turns
from isthmus._query.ast import Predicate
from isthmus._record import Record
from isthmus.backends.s3.id_filter import compile_id_test, id_range, is_id_predicate
from isthmus.backends.s3.keys import (
    id_of,
    name_before,
    name_before_stem,
    record_name,
    stem_of,
    upper_bound,
)
from isthmus.backends.s3.layout import end_of, start_id
from isthmus.backends.s3.object.byte_filter import ByteFilter, compile_filter
from isthmus.backends.s3.object.etag_cache import EtagCache
from isthmus.backends.s3.object.listing import RecordLister, parse_own_record
from isthmus.backends.s3.object.write import ObjectWriter
from isthmus.backends.s3.transport.conditional_put_probe import ConditionalPutProbe
from isthmus.backends.s3.transport.protocol import Listed
from isthmus.backends.s3.transport.requests import Requests, for_each

# Bytes of records in memory at a time.
_PAGE_BYTES = 64 * 2**20
# Bodies are read by pages of the listing, while the next page is listed.
_PAGE = 1000
_CHUNKS = 2
# More than any number of records or bytes.
_NO_LIMIT = 2**62


class ObjectLayout:
    """Reads and writes one object per record; the prefix of a collection is passed to each call."""

    def __init__(self, requests: Requests, probe: ConditionalPutProbe, cache: EtagCache | None) -> None:
        self._requests = requests
        self._writer = ObjectWriter(requests, probe)
        self._cache = cache

    # Reading

    async def read(self, prefix: str, ids: Sequence[str]) -> list[Record | None]:
        """Return records by id. Costs one GET for each distinct id."""
        records: dict[str, Record | None] = {}

        async def one(id: str) -> None:
            name = record_name(id)
            found = await self._requests.get(prefix + name)
            records[id] = None if found is None else parse_own_record(found.body, prefix, name)

        await for_each(one, dict.fromkeys(ids), self._requests.limit)
        return [records[id] for id in ids]

    async def page(self, prefix: str, request: PageRequest) -> Page:
        """Return a page: the names are listed in the order of ids, the bodies read concurrently.

        Costs a LIST for 1,000 names and a GET for each record that may match.
        """
        ids = id_range(request.where)
        if ids.only is not None:
            return await self._page_of_ids(prefix, request, ids.only)
        ordered = request.order is not None
        last_id: str | None = None
        after = name_before(ids.low) if ids.low else ""
        if request.after is not None and request.after.position is not None:
            if ordered:
                last_id = str(request.after.position[-1])
                after = max(after, name_before_stem(last_id) or record_name(last_id))
            else:
                after = str(request.after.position[0])
        end = None if ids.high is None else upper_bound(ids.high)
        lister = RecordLister(self._requests, prefix, after, end=end, ties=ordered)
        try:
            if ordered:
                return await self._page_by_id(lister, prefix, request, last_id)
            return await self._page_unordered(lister, prefix, request)
        finally:
            lister.close()

    async def _page_of_ids(self, prefix: str, request: PageRequest, only: Iterable[str]) -> Page:
        """Return a page of records whose ids the predicate names: no listing."""
        wanted = compile_id_test(request.where)
        last = start_id(request) or ""
        ids = sorted(id for id in only if id > last and _is_valid_id(id) and wanted(id))
        end = end_of(request)
        records: list[Record] = []
        start = 0
        while start < len(ids) and (end is None or len(records) <= end):
            chunk = ids[start : start + (_PAGE if end is None else min(end + 1 - len(records), _PAGE))]
            start += len(chunk)
            records += [record for record in await self.read(prefix, chunk) if record is not None]
        page = records[request.offset : end]
        if end is None or len(records) <= end:
            return Page(page, None)
        return Page(page, MORE if request.order is not None else After((page[-1].id,)))

    async def _page_by_id(
        self, lister: RecordLister, prefix: str, request: PageRequest, last_id: str | None
    ) -> Page:
        end = end_of(request)
        records: list[Record] = []
        limit = None if end is None else end + 1
        chunks = self._matches_in_order(lister, prefix, request.where, limit, last_id)
        async with contextlib.aclosing(chunks):
            async for found in chunks:
                records += found
                if limit is not None and len(records) >= limit:
                    break
        more = limit is not None and len(records) >= limit
        return Page(records[request.offset : end], MORE if more else None)

    async def _matches_in_order(
        self, lister: RecordLister, prefix: str, where: Predicate, limit: int | None, last_id: str | None
    ) -> AsyncGenerator[list[Record], None]:
        """Yield the matching records beyond `last_id` by chunks; the next chunk is read meanwhile.

        If every listed name is a match, no more than `limit` are read; if not, few at first.
        """
        keep = compile_filter(where)
        by_id = is_id_predicate(where)
        wanted = _NO_LIMIT if limit is None else limit
        width = self._requests.limit
        # Shared by both chunks: neither may time out while it waits for the requests of the other.
        slots = asyncio.Semaphore(width)

        async def chunk(names: Sequence[Listed]) -> list[Record]:
            found = await self._records(prefix, names, where, keep, slots)
            if any(stem_of(listed.name) for listed in names):
                found.sort(key=_id)
            return found if last_id is None else [record for record in found if _id(record) > last_id]

        reading: deque[tuple[int, asyncio.Task[list[Record]]]] = deque()
        more = True
        try:
            while wanted > 0:
                missing = wanted - sum(size for size, _ in reading)
                ahead = missing > 0 if by_id else missing >= _PAGE
                if more and (not reading or (ahead and len(reading) < _CHUNKS)):
                    count = min(missing if by_id else max(missing, width), _PAGE)
                    width = min(width * 2, _PAGE)
                    names = await lister.take(count, _PAGE_BYTES // _CHUNKS, at_hand=True)
                    more = bool(names)
                    if more:
                        reading.append((len(names), asyncio.ensure_future(chunk(names))))
                elif reading:
                    found = await reading.popleft()[1]
                    wanted -= len(found)
                    yield found
                else:
                    return
        finally:
            for _, task in reading:
                task.cancel()
            await asyncio.gather(*(task for _, task in reading), return_exceptions=True)

    async def _page_unordered(self, lister: RecordLister, prefix: str, request: PageRequest) -> Page:
        keep = compile_filter(request.where)
        records: list[Record] = []
        size = request.size_up_to(_NO_LIMIT)
        while len(records) < size:
            names = await lister.take(min(size - len(records), _PAGE), _PAGE_BYTES)
            if not names:
                return Page(records, None)
            records += await self._records(prefix, names, request.where, keep)
            if keep is None or len(records) * 2 > size:
                break
        return Page(records, After((names[-1].name,)))

    async def _records(
        self,
        prefix: str,
        names: Sequence[Listed],
        where: Predicate,
        keep: ByteFilter | None,
        slots: asyncio.Semaphore | None = None,
    ) -> list[Record]:
        """Return the matching records of listed objects in order, without those deleted meanwhile."""
        if keep is not None:
            names = _with_wanted_ids(names, where)
        bodies: list[bytes | None] = [None] * len(names)

        async def one(index: int) -> None:
            if slots is None:
                bodies[index] = await self._body(prefix, names[index])
            else:
                async with slots:
                    bodies[index] = await self._body(prefix, names[index])

        await for_each(one, range(len(names)), self._requests.limit)
        records = []
        turns = Turns()
        for listed, body in zip(names, bodies, strict=True):
            if turns.are_due:
                await turns.give()
            if body is None:
                continue
            id = None if keep is None else id_of(listed.name)
            if keep is not None and id is not None and not keep(id, body):
                continue
            record = parse_own_record(body, prefix, listed.name)
            if record is not None and (keep is None or id is not None or keep(_id(record), body)):
                records.append(record)
        return records

    async def _body(self, prefix: str, listed: Listed) -> bytes | None:
        key = prefix + listed.name
        if self._cache is not None:
            cached = await self._cache.get(key, listed.etag)
            if cached is not None:
                return cached
        found = await self._requests.get(key)
        if found is None:
            return None
        if self._cache is not None:
            await self._cache.put(key, found.etag, found.body)
        return found.body

    async def count(self, prefix: str, where: Predicate) -> int:
        """Return how many record keys are listed.

        Costs a LIST for 1,000 names, and a GET for each record whose id is too long for its key.
        """
        ids = id_range(where)
        if ids.only is not None:
            return len((await self._page_of_ids(prefix, PageRequest(where, None, None), ids.only)).records)
        keep = compile_filter(where)
        end = None if ids.high is None else upper_bound(ids.high)
        lister = RecordLister(self._requests, prefix, name_before(ids.low) if ids.low else "", end=end)
        total = 0
        try:
            while names := await lister.take(1000, _NO_LIMIT):
                if keep is not None:
                    names = _with_wanted_ids(names, where)
                    cut = [listed for listed in names if stem_of(listed.name)]
                    total += len(await self._records(prefix, cut, where, keep)) - len(cut)
                total += len(names)
        finally:
            lister.close()
        return total

    # Writing

    async def write(
        self, prefix: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations concurrently, those of one id in order; never atomic."""
        return await self._writer.write(prefix, kind, mutations)

    async def clear(self, prefix: str) -> int:
        """Delete all records and return how many there were; foreign objects stay.

        Costs a LIST and a bulk deletion for 1,000 records.
        """
        return await self._writer.clear(prefix)

    async def drop(self, prefix: str) -> None:
        """Delete all records, which are all objects of a collection but its marker."""
        await self._writer.clear(prefix)


def _with_wanted_ids(names: Sequence[Listed], where: Predicate) -> list[Listed]:
    """Return the names whose ids may match, and those too long to contain the id."""
    wanted = compile_id_test(where)
    return [listed for listed in names if (id := id_of(listed.name)) is None or wanted(id)]


def _is_valid_id(id: str) -> bool:
    """Return whether a record can have this id."""
    return 0 < len(id.encode()) <= 512


def _id(record: Record) -> str:
    return record.id or ""
