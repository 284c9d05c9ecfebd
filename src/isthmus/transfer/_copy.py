"""Copies records from one store to another, by acknowledged ranges of ids."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import orjson

from isthmus import AsyncDatabase, BatchError, IsthmusError, NotWrittenError, Query, Record, UsageError
from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._query.ast import Predicate
from isthmus._query.codec import to_json
from isthmus._query.query import as_query
from isthmus.transfer._digest import Digest, record_digest
from isthmus.transfer._fields import Shape, Transform
from isthmus.transfer._journal import Job, Journal
from isthmus.transfer._pages import Part, Reader, Store
from isthmus.transfer._patience import ATTEMPTS, patient, pause
from isthmus.transfer._progress import Pace, Progress
from isthmus.transfer._receipt import SHOWN, Receipt, Rejected

OnError = Literal["stop", "skip"]


async def copy(
    source: Store,
    target: Store,
    query: Query | Predicate | None = None,
    *,
    journal: str | Path | None = None,
    resume: bool = False,
    fields: Mapping[str, str | None] | None = None,
    transform: Transform | None = None,
    on_error: OnError = "stop",
    digests: bool = True,
    dry_run: bool = False,
    throttle: float | None = None,
    page_size: int | None = None,
    in_flight: int = 1,
    progress: Callable[[Progress], None] | None = None,
    source_name: str | None = None,
    target_name: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Receipt:
    """Copy the matching records, in the order of ids, and return a receipt.

    Records keep id, data and metadata; versions and times are the target's. Writes are upserts, so
    a range that is sent twice changes nothing. The next page is read while this one is written,
    and no further: at most `in_flight` + 2 pages of about 4 MB are in memory.

    With `journal=` each range that the target has taken is noted on disk, and `resume=True` goes
    on after the last one; what was written to the source behind that point since is found by
    `verify`. A memory target forgets, so a copy into one begins anew. `fields` and `transform` are those
    of `Shape`. `throttle` is records a second. `on_error="skip"` leaves out records that the
    target refuses and names them in the receipt; "stop" raises `BatchError`. `dry_run` writes
    nothing and tells what would be.
    """
    if on_error not in ("stop", "skip"):
        raise UsageError(f"on_error is 'stop' or 'skip', got {on_error!r}")
    if in_flight < 1 or (page_size is not None and page_size < 1) or (throttle is not None and throttle <= 0):
        raise UsageError("in_flight, page_size and throttle must be positive")
    if resume and journal is None:
        raise UsageError("resume needs the journal of the copy to go on with")
    found = as_query(query)
    shape = Shape(fields, transform)
    receipt = Receipt(source_name or _name(source), target_name or _name(target), dry_run=dry_run)
    log = None
    if journal is not None and not dry_run:
        log = Journal(journal, Job(receipt.source, receipt.target, _fingerprint(found), str(shape)))
        await _to_the_end(lambda: log.open(resume=resume))
    try:
        run = _Run(
            source, target, shape, receipt, log, on_error, digests, clock, Pace(clock, throttle=throttle)
        )
        await run.go(found, page_size, in_flight, progress)
    finally:
        if log is not None:
            log.close()
    return receipt


@dataclass(slots=True)
class _Range:
    """A page on its way into the target."""

    upto: str
    cursor: str | None
    read: int
    written: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    digest: Digest | None = None


@dataclass(slots=True)
class _Run:
    source: Store
    target: Store
    shape: Shape
    receipt: Receipt
    journal: Journal | None
    on_error: OnError
    digests: bool
    clock: Clock
    pace: Pace

    async def go(
        self,
        query: Query,
        page_size: int | None,
        in_flight: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        after = self._go_on()
        counting: asyncio.Task[int] | None = None
        if progress is not None:
            # Beside the copy: on S3 a count is a listing of everything.
            counting = asyncio.ensure_future(self._count(query))
        try:
            await self._ranges(query, after, page_size, in_flight, progress, counting)
        finally:
            if counting is not None:
                counting.cancel()
                await asyncio.gather(counting, return_exceptions=True)
        self.receipt.seconds = self.pace.seconds

    async def _count(self, query: Query) -> int:
        whole = Query(where=query.where)
        total = await patient(lambda: self.source.count(whole), self.clock)
        return total if query.count is None else min(total, query.count)

    def _go_on(self) -> str | None:
        """Take over what earlier runs did; return the id to go on after."""
        if self.journal is None:
            return None
        done = self.journal.done
        if done.upto is None or not self.target.capabilities.durable:
            return None
        receipt = self.receipt
        receipt.resumed_at, receipt.earlier = done.upto, done.read
        receipt.read, receipt.written = done.read, done.written
        receipt.left_out, receipt.rejected = done.left_out, done.rejected
        receipt.digest = done.digest
        # A digest over a part would look like one over the whole.
        self.digests = self.digests and done.digest is not None
        return done.upto

    async def _ranges(
        self,
        query: Query,
        after: str | None,
        page_size: int | None,
        in_flight: int,
        progress: Callable[[Progress], None] | None,
        counting: asyncio.Task[int] | None,
    ) -> None:
        reader = Reader(
            self.source,
            query,
            clock=self.clock,
            page_size=page_size,
            after=after,
            cursor=None if after is None or self.journal is None else self.journal.done.cursor,
            already=self.receipt.earlier,
        )
        writing: deque[asyncio.Task[_Range]] = deque()
        try:
            async with reader:
                while (part := await reader.page()).records:
                    writing.append(asyncio.ensure_future(self._send(part)))
                    while len(writing) >= in_flight:
                        await self._acknowledge(await writing.popleft(), progress, counting)
                while writing:
                    await self._acknowledge(await writing.popleft(), progress, counting)
        finally:
            self.receipt.bytes = reader.bytes
            for task in writing:
                task.cancel()
            await asyncio.gather(*writing, return_exceptions=True)

    async def _send(self, part: Part) -> _Range:
        """Write one page; return what is to be acknowledged."""
        page = part.records
        upto = page[-1].id
        assert upto is not None
        sent = _Range(upto, part.cursor, len(page))
        records = await self.shape.apply(page)
        refused: set[str] = set()
        if self.receipt.dry_run:
            await self._compare(records)
        elif records:
            sent.rejected = await self._write(records)
            refused = {rejected.id for rejected in sent.rejected}
        sent.written = len(records) - len(refused)
        if self.digests:
            sent.digest = Digest()
            for record in records:
                if record.id not in refused:
                    sent.digest.add(record_digest(record))
        return sent

    async def _write(self, records: list[Record]) -> list[Rejected]:
        """Upsert records until each is taken or refused for good; return the refused ones."""
        rejected: list[Rejected] = []
        # A batch that is all or nothing would let one bad record hold back the good ones.
        atomic = None if self.on_error == "stop" else False
        for attempt in range(ATTEMPTS):
            upsert = partial(self.target.upsert_batch, records, on_error="collect", atomic=atomic)
            outcomes = await patient(upsert, self.clock)
            errors = {i: e for i, e in outcomes.errors.items() if not isinstance(e, NotWrittenError)}
            final = {i: e for i, e in errors.items() if not e.transient}
            if (final and self.on_error == "stop") or (errors and attempt == ATTEMPTS - 1):
                raise BatchError(_refusal(self.receipt.target, records, final or errors), outcomes=outcomes)
            rejected += [Rejected(records[i].id or "", error) for i, error in final.items()]
            records = [records[i] for i in sorted(outcomes.errors.keys() - final.keys())]
            if not records:
                break
            await self.clock.sleep(pause(attempt))
        return rejected

    async def _compare(self, records: list[Record]) -> None:
        """Tell what writing these records would do."""
        ids = [record.id or "" for record in records]
        there = await patient(lambda: self.target.get_batch(ids), self.clock) if ids else []
        for record, old in zip(records, there, strict=True):
            if old is None:
                self.receipt.would_create += 1
            elif record_digest(old) == record_digest(record):
                self.receipt.unchanged += 1
            else:
                self.receipt.would_change += 1

    async def _acknowledge(
        self,
        sent: _Range,
        progress: Callable[[Progress], None] | None,
        counting: asyncio.Task[int] | None,
    ) -> None:
        receipt = self.receipt
        left_out = sent.read - sent.written - len(sent.rejected)
        if self.journal is not None:
            journal = self.journal
            await _to_the_end(
                lambda: journal.acknowledge(
                    sent.upto,
                    sent.cursor,
                    read=sent.read,
                    written=sent.written,
                    left_out=left_out,
                    rejected=len(sent.rejected),
                    digest=sent.digest,
                )
            )
        receipt.read += sent.read
        receipt.written += 0 if receipt.dry_run else sent.written
        receipt.left_out += left_out
        receipt.rejected += len(sent.rejected)
        receipt.rejections += sent.rejected[: SHOWN - len(receipt.rejections)]
        if sent.digest is not None:
            receipt.digest = receipt.digest or Digest()
            receipt.digest += sent.digest
        await self.pace.spend(sent.read)
        if progress is not None:
            known = counting is not None and counting.done() and not counting.cancelled()
            total = counting.result() if counting is not None and known else None
            progress(Progress(receipt.read, total, self.pace.rate, self.pace.seconds))


async def _to_the_end(work: Callable[[], None]) -> None:
    """Run file work in a thread, and wait for its end even when cancelled."""
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.gather(thread, return_exceptions=True)
        raise


def _name(store: Store) -> str:
    backend = f"{store.backend}:" if isinstance(store, AsyncDatabase) else ""
    return backend + store.collection_name


def _fingerprint(query: Query) -> str:
    """Return what tells two queries apart."""
    if query == Query():
        return ""
    text = orjson.dumps(to_json(query), option=orjson.OPT_SORT_KEYS)
    return blake2b(text, digest_size=8).hexdigest()


def _refusal(target: str, records: list[Record], errors: dict[int, IsthmusError]) -> str:
    index, error = next(iter(errors.items()))
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return f"{target} refused the record {records[index].id!r}{more}: {error}"
