"""Layout `object`: one readable JSON object per record, in the order of ids."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence

import orjson

from isthmus._executor import MORE, Change, Kind, Page, PageRequest, Result
from isthmus._query.ast import Predicate
from isthmus._record import Record
from isthmus._values import decode
from isthmus.backends.s3 import MAX_RECORD_BYTES
from isthmus.backends.s3.conditions import Conditions
from isthmus.backends.s3.envelope import Row, now, read, token
from isthmus.backends.s3.errors import NoSuchKeyError, PreconditionError
from isthmus.backends.s3.ids import by_id, only_ids, span_of
from isthmus.backends.s3.keys import before_cut, cut_of, end_at, id_of, name_before, record_name
from isthmus.backends.s3.listing import Lister, report_foreign
from isthmus.backends.s3.prefilter import Filter, compiled
from isthmus.backends.s3.requests import Requests, each
from isthmus.backends.s3.tag_cache import TagCache
from isthmus.backends.s3.transport import Blob, Listed
from isthmus.errors import (
    AccessError,
    AlreadyExistsError,
    Applied,
    ConflictError,
    ConnectError,
    InvalidRecordError,
    IsthmusError,
    NotFoundError,
    RecordError,
    StoreError,
    UnavailableError,
    UnexpectedError,
)

# How much may be fetched at a time, whatever the records' size.
_PAGE_BYTES = 64 * 2**20
_ATTEMPTS = 40
# Bodies are got by listed pages, the next one being listed meanwhile.
_PAGE = 1000
_CHUNKS = 2
# A listing of 1,000 takes as long as so many single requests side by side.
_WORTH_LISTING = 100


class ObjectLayout:
    """Reads and writes one object per record."""

    def __init__(self, requests: Requests, conditions: Conditions, cache: TagCache | None) -> None:
        self._requests = requests
        self._conditions = conditions
        self._cache = cache

    # Reading

    async def read(self, place: str, ids: Sequence[str]) -> list[Record | None]:
        """Return records by one GET for each distinct id."""
        if len(ids) == 1:
            found = await self._requests.get(place + record_name(ids[0]))
            return [None if found is None else _record(found.body, place, ids[0])]
        records: dict[str, Record | None] = {}

        async def one(id: str) -> None:
            found = await self._requests.get(place + record_name(id))
            records[id] = None if found is None else _record(found.body, place, id)

        await each(one, dict.fromkeys(ids), self._width(len(ids)))
        return [records[id] for id in ids]

    def _width(self, items: int) -> int:
        return max(1, min(self._requests.limit, items))

    async def page(self, place: str, request: PageRequest) -> Page:
        """Return a page: names are listed in the order of ids, bodies got side by side."""
        span = span_of(request.where)
        if span.only is not None:
            return await self._of_few(place, request, span.only)
        ordered = request.order is not None
        last_id: str | None = None
        after = name_before(span.low) if span.low else ""
        if request.after:
            if ordered:
                last_id = request.after[-1]
                after = max(after, before_cut(last_id) or record_name(last_id))
            else:
                after = request.after[0]
        end = None if span.high is None else end_at(span.high)
        lister = Lister(self._requests, place, after, end=end, ties=ordered)
        try:
            if ordered:
                return await self._by_id(lister, place, request, last_id)
            return await self._unordered(lister, place, request)
        finally:
            lister.close()

    async def _of_few(self, place: str, request: PageRequest, only: Iterable[str]) -> Page:
        """Return a page of records whose ids are known: no listing."""
        wanted = by_id(request.where)
        last = request.after[-1] if request.after else ""
        ids = sorted(id for id in only if id > last and _can_be(id) and wanted(id))
        end = request.offset + request.size + 1
        records: list[Record] = []
        at = 0
        while len(records) < end and at < len(ids):
            chunk = ids[at : at + min(end - len(records), _PAGE)]
            at += len(chunk)
            records += [record for record in await self.read(place, chunk) if record is not None]
        page = records[request.offset : end - 1]
        if len(records) < end:
            return Page(page, None)
        return Page(page, MORE if request.order is not None else (page[-1].id,))

    async def _by_id(self, lister: Lister, place: str, request: PageRequest, last_id: str | None) -> Page:
        wanted = request.offset + request.size + 1
        records: list[Record] = []
        chunks = self._in_order(lister, place, request.where, wanted, last_id)
        async with contextlib.aclosing(chunks):
            async for found in chunks:
                records += found
                if len(records) >= wanted:
                    break
        page = records[request.offset : request.offset + request.size]
        return Page(page, MORE if len(records) >= wanted else None)

    async def _in_order(
        self, lister: Lister, place: str, where: Predicate, wanted: int, last_id: str | None
    ) -> AsyncGenerator[list[Record], None]:
        """Yield the matching records of listed names by chunks, the next one got while this one is used.

        No more names are taken than may be wanted where each is a match, and few at first where not.
        """
        keep = compiled(where)
        sure = only_ids(where)
        width = self._requests.limit
        # Of both chunks together: one that waits for the other's requests must not time out.
        turns = asyncio.Semaphore(width)

        async def chunk(names: Sequence[Listed]) -> list[Record]:
            found = await self._records(place, names, where, keep, turns)
            if any(cut_of(listed.name) for listed in names):
                found.sort(key=_id)
            return found if last_id is None else [record for record in found if _id(record) > last_id]

        under_way: deque[tuple[int, asyncio.Task[list[Record]]]] = deque()
        more = True
        try:
            while wanted > 0:
                missing = wanted - sum(size for size, _ in under_way)
                ahead = missing > 0 if sure else missing >= _PAGE
                if more and (not under_way or (ahead and len(under_way) < _CHUNKS)):
                    count = min(missing if sure else max(missing, width), _PAGE)
                    width = min(width * 2, _PAGE)
                    names = await lister.take(count, _PAGE_BYTES // _CHUNKS, at_hand=True)
                    more = bool(names)
                    if more:
                        under_way.append((len(names), asyncio.ensure_future(chunk(names))))
                elif under_way:
                    found = await under_way.popleft()[1]
                    wanted -= len(found)
                    yield found
                else:
                    return
        finally:
            for _, getting in under_way:
                getting.cancel()
            await asyncio.gather(*(getting for _, getting in under_way), return_exceptions=True)

    async def _unordered(self, lister: Lister, place: str, request: PageRequest) -> Page:
        keep = compiled(request.where)
        records: list[Record] = []
        while len(records) < request.size:
            names = await lister.take(min(request.size - len(records), _PAGE), _PAGE_BYTES)
            if not names:
                return Page(records, None)
            records += await self._records(place, names, request.where, keep)
            if keep is None or len(records) * 2 > request.size:
                return Page(records, (names[-1].name,))
        return Page(records, (names[-1].name,))

    async def _records(
        self,
        place: str,
        names: Sequence[Listed],
        where: Predicate,
        keep: Filter | None,
        turns: asyncio.Semaphore | None = None,
    ) -> list[Record]:
        """Return the records of listed objects in their order; one deleted meanwhile is left out."""
        if keep is not None:
            names = _with_wanted_ids(names, where)
        bodies: list[bytes | None] = [None] * len(names)

        async def one(at: int) -> None:
            if turns is None:
                bodies[at] = await self._body(place, names[at])
            else:
                async with turns:
                    bodies[at] = await self._body(place, names[at])

        await each(one, range(len(names)), self._width(len(names)))
        records = []
        for listed, body in zip(names, bodies, strict=True):
            if body is None:
                continue
            id = None if keep is None else id_of(listed.name)
            if keep is not None and id is not None and not keep(id, body):
                continue
            record = _record(body, place, None, listed.name)
            if record is not None and (keep is None or id is not None or keep(_id(record), body)):
                records.append(record)
        return records

    async def _body(self, place: str, listed: Listed) -> bytes | None:
        key = place + listed.name
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

    async def count(self, place: str, where: Predicate) -> int:
        """Return how many record keys are listed; no record is got but one whose key does not tell its id."""
        span = span_of(where)
        if span.only is not None:
            return len((await self._of_few(place, PageRequest(where, None, 2**62), span.only)).records)
        keep = compiled(where)
        end = None if span.high is None else end_at(span.high)
        lister = Lister(self._requests, place, name_before(span.low) if span.low else "", end=end)
        total = 0
        try:
            while names := await lister.take(1000, 2**62):
                if keep is not None:
                    names = _with_wanted_ids(names, where)
                    cut = [listed for listed in names if cut_of(listed.name)]
                    total += len(await self._records(place, cut, where, keep)) - len(cut)
                total += len(names)
        finally:
            lister.close()
        return total

    # Writing

    async def write(self, place: str, kind: Kind, changes: Sequence[Change], *, atomic: bool) -> list[Result]:
        """Apply changes side by side, those of one id in their order."""
        if kind is not Kind.DELETE and (kind is not Kind.UPSERT or any(c.if_version for c in changes)):
            await self._conditions.require_conditional_put()
        if kind is Kind.DELETE and not any(change.if_version for change in changes):
            return await self._delete(place, changes)
        results: list[Result] = [False] * len(changes)
        runs: dict[str, list[int]] = {}
        for at, change in enumerate(changes):
            runs.setdefault(change.id, []).append(at)
        stamp = now()
        outage: list[StoreError] = []

        async def run(places: list[int]) -> None:
            for at in places:
                if outage:  # asking each time would only take longer to say the same
                    results[at] = _same(outage[0])
                    continue
                try:
                    results[at] = await self._apply(place, kind, changes[at], stamp)
                except RecordError as error:
                    error.record_id = changes[at].id
                    results[at] = error
                except StoreError as error:
                    results[at] = error
                    if isinstance(error, ConnectError | AccessError):
                        outage.append(error)

        await each(run, runs.values(), self._width(len(runs)))
        if outage and all(
            isinstance(result, StoreError) and result.applied is Applied.NO for result in results
        ):
            raise outage[0]
        return results

    async def _apply(self, place: str, kind: Kind, change: Change, stamp: str) -> Result:
        key = place + record_name(change.id)
        match kind:
            case Kind.CREATE:
                row = Row(change.id, token(), stamp, stamp, change.encoded_metadata(), change.encoded())
                return await self._create(key, row)
            case Kind.DELETE:
                return await self._delete_if(key, place, change)
            case _:
                return await self._rewrite(key, place, kind, change, stamp)

    async def _create(self, key: str, row: Row) -> str:
        try:
            await self._put(key, row, None)
        except PreconditionError as error:
            raise AlreadyExistsError(
                f"a record with the id {row.id!r} is there already",
                record_id=row.id,
                applied=Applied.MAYBE if error.doubtful else None,
            ) from None
        return row.id

    async def _put(self, key: str, row: Row, etag: str | None) -> None:
        line = row.line()
        if len(line) > MAX_RECORD_BYTES:
            raise InvalidRecordError(
                f"data: the encoded record has {len(line)} bytes, at most {MAX_RECORD_BYTES} are stored",
                path="data",
                record_id=row.id,
            )

        def is_ours(body: bytes) -> bool:
            found = read(body)
            return found is not None and found.version == row.version

        await self._requests.put_if(key, line, is_ours, if_match=etag)

    async def _rewrite(self, key: str, place: str, kind: Kind, change: Change, stamp: str) -> Result:
        """Read, judge and write under the condition that nobody wrote in between; again if somebody did."""
        data, metadata = change.encoded(), change.encoded_metadata()
        for attempt in range(_ATTEMPTS):
            found = await self._requests.get(key)
            current = None if found is None else self._own(found, place, change.id)
            row = rewritten(kind, change, current, data, metadata, stamp)
            if not self._conditions.conditional_put:  # an upsert: the last one wins
                await self._requests.put(key, row.line())
                return row.version
            try:
                await self._put(key, row, None if found is None else found.etag)
            except PreconditionError as error:
                if error.doubtful and change.if_version is not None:
                    raise ConflictError(
                        f"{change.id!r} was written again after an attempt that had no answer",
                        applied=Applied.MAYBE,
                    ) from None
            else:
                return row.version
            await self._requests.pause(min(attempt, 3) - 3)
        raise ConflictError(f"{change.id!r} kept changing: {_ATTEMPTS} attempts met another write")

    def _own(self, found: Blob, place: str, id: str) -> Record:
        record = _record(found.body, place, id)
        if record is None:
            raise UnexpectedError(
                f"the object of {id!r} is not a record that isthmus wrote; it is left alone"
            )
        return record

    async def _delete(self, place: str, changes: Sequence[Change]) -> list[Result]:
        """Delete what is there and say of each whether it was: one request for 1,000 ids.

        What is there is looked up first; of two handles that delete one id at once, both may hear
        that it was there.
        """
        keys = {change.id: place + record_name(change.id) for change in changes}
        names = {record_name(id): id for id in keys}
        present = {names[name]: there for name, there in (await self._listed(place, names)).items()}

        async def look(id: str) -> None:
            present[id] = await self._requests.head(keys[id]) is not None

        await each(look, [id for id in keys if id not in present], self._width(len(keys) - len(present)))
        if not all(present.values()):
            await self._conditions.require_bucket()
        failed = await self._requests.delete_many([keys[id] for id in keys if present[id]])
        results: list[Result] = []
        for change in changes:
            # The first delete of an id finds it, a second one in the batch does not.
            there = present[change.id]
            present[change.id] = False
            results.append(failed.get(keys[change.id], True) if there else False)
        return results

    async def _listed(self, place: str, names: Iterable[str]) -> dict[str, bool]:
        """Return which of many names are there, as far as listings are cheaper than single requests."""
        wanted = sorted(names)
        known: dict[str, bool] = {}
        while len(wanted) - len(known) >= _WORTH_LISTING:
            # Without its last character a name is just before itself.
            listing = await self._requests.listing(place, after=wanted[len(known)][:-1])
            there = {listed.name for listed in listing.found}
            last = listing.found[-1].name if listing.more else None
            told = 0
            for name in wanted[len(known) :]:
                if last is not None and name.encode() > last.encode():
                    break
                known[name] = name in there
                told += 1
            if told < _WORTH_LISTING:
                break
        return known

    async def _delete_if(self, key: str, place: str, change: Change) -> bool:
        if change.if_version is None:
            [result] = await self._delete(place, [change])
            if isinstance(result, IsthmusError):
                raise result
            return bool(result)
        rare = await self._conditions.require_conditional_delete()
        doubtful = False
        for attempt in range(_ATTEMPTS):
            found = await self._requests.get(key)
            current = None if found is None else self._own(found, place, change.id)
            if found is None and doubtful:
                return True
            judge_version(change, current)
            assert found is not None
            etag = found.etag
            try:
                await self._requests.send(lambda _, etag=etag: rare.delete_if(key, etag))  # type: ignore[misc]
            except PreconditionError:
                continue
            except NoSuchKeyError:
                return True if doubtful else _gone(change)
            except UnavailableError as error:
                doubtful = doubtful or error.applied is Applied.MAYBE
                if not error.transient or isinstance(error, ConnectError) or attempt >= 3:
                    error.applied = Applied.MAYBE if doubtful else Applied.NO
                    raise
                await self._requests.pause(attempt)
            else:
                return True
        raise ConflictError(f"{change.id!r} kept changing")

    async def clear(self, place: str) -> int:
        """Delete every record by 1,000; what is not a record stays."""
        lister = Lister(self._requests, place)
        total = 0
        try:
            while names := await lister.take(10_000, 2**62):
                failed = await self._requests.delete_many([place + listed.name for listed in names])
                total += len(names) - len(failed)
                if failed:
                    raise next(iter(failed.values()))
        finally:
            lister.close()
        return total


def rewritten(
    kind: Kind, change: Change, current: Record | None, data: bytes, metadata: bytes, stamp: str
) -> Row:
    """Return the row that a replace, update or upsert makes of the current record; raises its refusal."""
    if current is None and kind is not Kind.UPSERT:
        raise NotFoundError(f"no record has the id {change.id!r}", record_id=change.id)
    judge_version(change, current)
    if current is None:
        return Row(change.id, token(), stamp, stamp, metadata, data)
    if kind is Kind.UPDATE:
        data = orjson.dumps({**current.data, **decode(data)})
        metadata = (
            orjson.dumps({**current.metadata, **decode(metadata)}) if change.metadata else _encoded(current)
        )
    return Row(change.id, token(), created_text(current), stamp, metadata, data)


def _encoded(current: Record) -> bytes:
    return orjson.dumps(current.metadata)


def created_text(record: Record) -> str:
    """Return when the record was made, as it is written."""
    from isthmus._values import format_datetime

    assert record.created_at is not None
    return format_datetime(record.created_at)


def judge_version(change: Change, current: Record | None) -> None:
    """Raise the refusal of a compare-and-set: `ConflictError`, or what a missing record means."""
    if change.if_version is None or (current is not None and current.version == change.if_version):
        return
    if current is None:
        _gone(change)
    raise ConflictError(f"{change.id!r} is no longer at the version that was read", record_id=change.id)


def _gone(change: Change) -> bool:
    raise ConflictError(f"{change.id!r} is not there any more", record_id=change.id)


def _same(error: StoreError) -> StoreError:
    return type(error)(str(error), transient=error.transient, applied=Applied.NO)


def _with_wanted_ids(names: Sequence[Listed], where: Predicate) -> list[Listed]:
    """Return the names whose ids may match, with those that do not tell their id."""
    wanted = by_id(where)
    return [listed for listed in names if (id := id_of(listed.name)) is None or wanted(id)]


def _can_be(id: str) -> bool:
    """Return whether a record can have this id, so that asking for it means something."""
    return 0 < len(id.encode()) <= 512


def _id(record: Record) -> str:
    return record.id or ""


def _record(body: bytes, place: str, id: str | None, name: str | None = None) -> Record | None:
    """Return the record of a body if it is the one that its key says, else report it."""
    record = read(body)
    if record is not None and record.id is not None:
        if id is not None and record.id == id:
            return record
        if name is not None and record_name(record.id) == name:
            return record
    report_foreign(place + (name or record_name(id or "")), "its body is not that of a record with this key")
    return None
