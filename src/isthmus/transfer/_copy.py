"""Copies records from one store to another, by acknowledged ranges of ids."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import orjson

from isthmus import AsyncDatabase, BatchError, IsthmusError, NotWrittenError, Query, Record, UsageError
from isthmus._arguments import check_count
from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._query.ast import Predicate
from isthmus._query.codec import to_json
from isthmus._query.query import as_query
from isthmus.transfer._digest import Digest, record_digest
from isthmus.transfer._fields import Shape, Transform
from isthmus.transfer._journal import CopiedRange, CopyIdentity, Journal
from isthmus.transfer._progress import Progress, RateLimiter
from isthmus.transfer._reader import PageReader, SourcePage, Store
from isthmus.transfer._receipt import MAX_LISTED, Receipt, Rejected
from isthmus.transfer._retry import ATTEMPTS, backoff, retry_transient

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
    """Copy the matching records, in id order, and return a receipt.

    Records keep their id, data and metadata; version and timestamps are set by the target. Writes
    are upserts, so sending a range twice has no further effect. The next page is read while the
    current one is written: at most `in_flight` + 2 pages of about 4 MB are in memory.

    With `journal=` each range that the target acknowledged is recorded on disk, and `resume=True`
    continues after the last one. Records that were written to the source before that point in the
    meantime are not copied; `verify` finds them. A copy into a target that is not durable (memory)
    starts over.

    `fields` and `transform` are those of `Shape`. `throttle` is the maximum rate in records per
    second, `page_size` the maximum records in a page, `in_flight` how many pages are written
    concurrently. `on_error="skip"` skips records that the target rejects and lists them in the
    receipt; `"stop"` raises `BatchError`. `digests=False` saves about 4 µs per record. `dry_run`
    writes nothing and counts what would be written. `progress` is called after each page.
    `source_name` and `target_name` replace the names of the stores in receipt and journal.

    Raises `QueryError` for a query with a sort or an offset, `UsageError` for wrong arguments or a
    journal in use, `ConfigError` for a journal that is damaged or of another copy.
    """
    if on_error not in ("stop", "skip"):
        raise UsageError(f"on_error must be 'stop' or 'skip', not {on_error!r}")
    check_count("in_flight", in_flight)
    if page_size is not None:
        check_count("page_size", page_size)
    if throttle is not None and not throttle > 0:
        raise UsageError(f"throttle must be above 0, got {throttle!r}")
    if resume and journal is None:
        raise UsageError("resume needs the journal of the copy to resume")
    parsed = as_query(query)
    shape = Shape(fields, transform)
    receipt = Receipt(source_name or _store_name(source), target_name or _store_name(target), dry_run=dry_run)
    opened = None
    if journal is not None and not dry_run:
        identity = CopyIdentity(receipt.source, receipt.target, _fingerprint(parsed), str(shape))
        opened = Journal(journal, identity)
    try:
        if opened is not None:
            await _in_thread(target, partial(opened.open, resume=resume))
        run = _CopyRun(
            source,
            target,
            parsed,
            shape,
            receipt,
            opened,
            on_error,
            digests,
            page_size,
            in_flight,
            progress,
            clock,
            RateLimiter(clock, limit=throttle),
        )
        await run.run()
    finally:
        if opened is not None:
            opened.close()
    return receipt


@dataclass(slots=True)
class _CopyRun:
    source: Store
    target: Store
    query: Query
    shape: Shape
    receipt: Receipt
    journal: Journal | None
    on_error: OnError
    digests: bool
    page_size: int | None
    in_flight: int
    progress: Callable[[Progress], None] | None
    clock: Clock
    limiter: RateLimiter
    total: asyncio.Task[int] | None = None
    """Counts the records to copy, for `progress`."""

    async def run(self) -> None:
        completed = self._find_completed()
        if completed is not None:
            self._resume(completed)
        if self.progress is not None:
            # Concurrently: on S3 a count lists all objects.
            self.total = asyncio.ensure_future(self._count())
        try:
            await self._copy_ranges(completed)
        finally:
            if self.total is not None:
                self.total.cancel()
                await asyncio.gather(self.total, return_exceptions=True)
        self.receipt.seconds = self.limiter.seconds

    async def _count(self) -> int:
        conditions = Query(where=self.query.where)
        total = await retry_transient(lambda: self.source.count(conditions), self.clock)
        return total if self.query.count is None else min(total, self.query.count)

    def _find_completed(self) -> CopiedRange | None:
        """Return the ranges that earlier runs copied, unless the target has lost them."""
        if self.journal is None or not self.target.capabilities.durable:
            return None
        return self.journal.completed

    def _resume(self, completed: CopiedRange) -> None:
        receipt = self.receipt
        receipt.resumed_at, receipt.earlier = completed.last_id, completed.read
        receipt.read, receipt.written = completed.read, completed.written
        receipt.left_out, receipt.rejected = completed.left_out, completed.rejected
        receipt.digest = completed.digest
        # A digest of a part would pass for one of the whole.
        self.digests = self.digests and completed.digest is not None

    async def _copy_ranges(self, completed: CopiedRange | None) -> None:
        reader = PageReader(
            self.source,
            self.query,
            clock=self.clock,
            page_size=self.page_size,
            after=None if completed is None else completed.last_id,
            cursor=None if completed is None else completed.cursor,
            already_read=self.receipt.earlier,
        )
        writes: deque[asyncio.Task[tuple[CopiedRange, list[Rejected]]]] = deque()
        try:
            async with reader:
                while (page := await reader.page()).records:
                    writes.append(asyncio.ensure_future(self._copy_page(page)))
                    while len(writes) >= self.in_flight:
                        await self._acknowledge(*await writes.popleft())
                while writes:
                    await self._acknowledge(*await writes.popleft())
        finally:
            self.receipt.bytes = reader.bytes
            for task in writes:
                task.cancel()
            await self.target._session.ends.run(_wait_for(writes), "isthmus-copy-end")

    async def _copy_page(self, page: SourcePage) -> tuple[CopiedRange, list[Rejected]]:
        """Write one page; return its range and the records that the target rejected."""
        last_id = page.records[-1].id
        assert last_id is not None
        records = await self.shape.apply(page.records)
        rejected: list[Rejected] = []
        if self.receipt.dry_run:
            await self._compare(records)
        elif records:
            rejected = await self._write(records)
        written = len(records) - len(rejected)
        copied = CopiedRange(
            last_id,
            page.cursor,
            read=len(page.records),
            written=written,
            left_out=len(page.records) - len(records),
            rejected=len(rejected),
        )
        if self.digests:
            rejected_ids = {one.id for one in rejected}
            copied.digest = Digest()
            for record in records:
                if record.id not in rejected_ids:
                    copied.digest.add(record_digest(record))
        return copied, rejected

    async def _write(self, records: list[Record]) -> list[Rejected]:
        """Upsert records until each is written or rejected for good; return the rejected ones."""
        rejected: list[Rejected] = []
        # In an atomic batch one bad record would hold back the good ones.
        atomic = None if self.on_error == "stop" else False
        for attempt in range(ATTEMPTS):
            upsert = partial(self.target.upsert_batch, records, on_error="collect", atomic=atomic)
            outcomes = await retry_transient(upsert, self.clock)
            errors = {i: e for i, e in outcomes.errors.items() if not isinstance(e, NotWrittenError)}
            final = {i: e for i, e in errors.items() if not e.transient}
            if (final and self.on_error == "stop") or (errors and attempt == ATTEMPTS - 1):
                message = _rejection_message(self.receipt.target, records, final or errors)
                raise BatchError(message, outcomes=outcomes)
            rejected += [Rejected(records[i].id or "", error) for i, error in final.items()]
            records = [records[i] for i in sorted(outcomes.errors.keys() - final.keys())]
            if not records:
                break
            await self.clock.sleep(backoff(attempt))
        return rejected

    async def _compare(self, records: list[Record]) -> None:
        """Count what writing these records would create, change and leave unchanged."""
        ids = [record.id or "" for record in records]
        existing = await retry_transient(lambda: self.target.get_batch(ids), self.clock) if ids else []
        for record, old in zip(records, existing, strict=True):
            if old is None:
                self.receipt.would_create += 1
            elif record_digest(old) == record_digest(record):
                self.receipt.unchanged += 1
            else:
                self.receipt.would_change += 1

    async def _acknowledge(self, copied: CopiedRange, rejected: list[Rejected]) -> None:
        """Record a copied range in the journal, then in the receipt."""
        if self.journal is not None:
            await _in_thread(self.target, partial(self.journal.record, copied))
        receipt = self.receipt
        receipt.read += copied.read
        receipt.written += 0 if receipt.dry_run else copied.written
        receipt.left_out += copied.left_out
        receipt.rejected += copied.rejected
        receipt.rejections += rejected[: MAX_LISTED - len(receipt.rejections)]
        if copied.digest is not None:
            receipt.digest = receipt.digest or Digest()
            receipt.digest += copied.digest
        await self.limiter.spend(copied.read)
        if self.progress is not None:
            task = self.total
            total = None if task is None or not task.done() or task.cancelled() else task.result()
            self.progress(Progress(receipt.read, total, self.limiter.rate, self.limiter.seconds))


async def _wait_for(writes: Collection[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*writes, return_exceptions=True)


async def _in_thread(target: Store, work: Callable[[], None]) -> None:
    """Run file I/O in a thread; it goes on when the caller is cancelled, and the journal's closing waits."""
    await target._session.ends.run(asyncio.to_thread(work), "isthmus-journal")


def _store_name(store: Store) -> str:
    backend = f"{store.backend}:" if isinstance(store, AsyncDatabase) else ""
    return backend + store.collection_name


def _fingerprint(query: Query) -> str:
    """Return a hash of a query; empty for the query that matches everything."""
    if query == Query():
        return ""
    text = orjson.dumps(to_json(query), option=orjson.OPT_SORT_KEYS)
    return blake2b(text, digest_size=8).hexdigest()


def _rejection_message(target: str, records: list[Record], errors: dict[int, IsthmusError]) -> str:
    index, error = next(iter(errors.items()))
    others = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    return f"{target} rejected record {records[index].id!r}{others}: {error}"
