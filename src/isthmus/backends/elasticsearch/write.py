"""Writes: the five kinds as bulk requests, some chunks at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Generator, Iterator, Sequence

from isthmus._changes import Changes
from isthmus._executor import Change, Kind, Result
from isthmus.backends.elasticsearch import doubt
from isthmus.backends.elasticsearch.bulk import Bulk, all_made, finished
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.columns import creates_in_columns, fits
from isthmus.backends.elasticsearch.creates import Creates
from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.merge import Merge
from isthmus.backends.elasticsearch.outcomes import created, deleted, doing, doubtful, unparsed
from isthmus.backends.elasticsearch.prepare import (
    Prepared,
    chunks,
    condition,
    creates,
    encoded,
    json_of,
    rounds,
)
from isthmus.errors import StoreError, UnavailableError


class _Stop(Exception):
    """A request failed as a whole; nothing more is sent."""


class Writer:
    """One write of one kind to one index."""

    def __init__(self, pool: ClientPool, index: Index, bulk: Bulk, *, attempts: int, max_bytes: int) -> None:
        self._pool = pool
        self._index = index
        self._bulk = bulk
        self._attempts = attempts
        self._max_bytes = max_bytes
        self._stopped = False

    async def write(self, kind: Kind, changes: Sequence[Change]) -> list[Result]:
        """Apply changes as if one after another and return a result for each, in order."""
        results: list[Result | None] = [None] * len(changes)
        try:
            for positions in rounds(changes):
                await self._round(kind, changes, positions, results)
        except _Stop as stop:
            failure = stop.__cause__
            assert isinstance(failure, StoreError)
            if all(result is None or result is failure for result in results):
                raise failure from failure.__cause__
            unsent = UnavailableError(f"not sent: an earlier part of the batch failed ({failure})")
            results = [unsent if result is None else result for result in results]
        return results  # type: ignore[return-value]

    async def _round(
        self, kind: Kind, changes: Sequence[Change], positions: Sequence[int], results: list[Result | None]
    ) -> None:
        """Apply changes of distinct ids, some chunks at a time."""
        running: set[asyncio.Task[None]] = set()
        chunks = self._prepared(kind, changes, positions, results)
        first = next(chunks, None)
        if first is None:
            return
        if len(first) == len(positions):  # one chunk needs no task of its own
            await self._guarded(kind, changes, first, results)
            return
        waiting = itertools.chain([first], chunks)
        # One more than are in flight: it prepares a chunk meanwhile, so that the server need not wait.
        slots = asyncio.Semaphore(self._bulk.concurrency)
        self._stopped = False
        running = {
            asyncio.create_task(self._worker(number, slots, kind, changes, waiting, results))
            for number in range(self._bulk.concurrency + 1)
        }
        try:
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            chunks.close()  # nobody begins another
            self._stopped = True
            if running:
                await self._settle(running)

    def _prepared(
        self, kind: Kind, changes: Sequence[Change], positions: Sequence[int], results: list[Result | None]
    ) -> Generator[Creates | list[Prepared], None, None]:
        index, bulk, most = self._index, self._bulk, self._max_bytes
        if kind is Kind.CREATE:
            if isinstance(changes, Changes) and len(positions) == len(changes) and fits(index, changes):
                return creates_in_columns(index, bulk, most, changes, results)
            return creates(index, bulk, most, changes, positions, results)
        return chunks(index, bulk, most, kind, changes, positions, results)

    async def _worker(
        self,
        number: int,
        slots: asyncio.Semaphore,
        kind: Kind,
        changes: Sequence[Change],
        chunks: Iterator[Creates | list[Prepared]],
        results: list[Result | None],
    ) -> None:
        """Prepare chunks and send each when there is a slot, until fewer are to be in flight."""
        while number <= self._bulk.concurrency:
            chunk = next(chunks, None)
            if chunk is None:
                return
            async with slots:
                if self._stopped:
                    return
                await self._guarded(kind, changes, chunk, results)
            await asyncio.sleep(0)  # whoever has a chunk ready sends it before this one prepares the next
        await slots.acquire()  # and takes a slot along

    async def _settle(self, running: set[asyncio.Task[None]]) -> None:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            await finished(running)
            return
        # A chunk that is under way may be applied: its results must be known, not guessed.
        await asyncio.gather(*running, return_exceptions=True)

    async def _guarded(
        self,
        kind: Kind,
        changes: Sequence[Change],
        chunk: Creates | list[Prepared],
        results: list[Result | None],
    ) -> None:
        try:
            if isinstance(chunk, Creates):
                await self._create(changes, chunk, results)
            elif kind is Kind.DELETE:
                await self._delete(changes, chunk, results)
            else:
                merge = Merge(self._pool, self._index, self._bulk, kind, changes, self._attempts)
                await merge.apply(chunk, results)
        except StoreError as error:
            self._stopped = True
            places = chunk.at if isinstance(chunk, Creates) else [prepared.at for prepared in chunk]
            for at in places:
                if results[at] is None:
                    results[at] = error
            raise _Stop from error

    async def _create(self, changes: Sequence[Change], chunk: Creates, results: list[Result | None]) -> None:
        index, what = self._index, doing(Kind.CREATE, self._index)
        await index.prepare(self._pool, chunk.shapes())
        items = await self._bulk.send(self._pool, index, chunk.lines(index), what, creates=True)
        if all_made(items):
            _ids_into(results, chunk.at, changes)
            return
        again = unparsed(items)
        if again:
            refused = [changes[chunk.at[place]] for place in again]
            whole = [chunk.whole(json_of(change.id), *encoded(change)) for change in refused]
            sent = await self._bulk.send(self._pool, index, whole, what)
            for place, item in zip(again, sent, strict=True):
                items[place] = item
        for at, item in zip(chunk.at, items, strict=True):
            change = changes[at]
            if item.status == 201:
                results[at] = change.id
                continue
            said = created(index, change, item)
            if doubt.refused_again(item):
                said = await doubt.created(self._pool, index, change, item, chunk.time, said)
            results[at] = said

    async def _delete(
        self, changes: Sequence[Change], chunk: list[Prepared], results: list[Result | None]
    ) -> None:
        index = self._index
        versions = [changes[prepared.at].if_version for prepared in chunk]
        lines = [
            b'{"delete":{"_id":' + prepared.identity + condition(version) + b"}}\n"
            for prepared, version in zip(chunk, versions, strict=True)
        ]
        once = [version is not None for version in versions]
        items = await self._bulk.send(self._pool, index, lines, doing(Kind.DELETE, index), once=once)
        for prepared, item in zip(chunk, items, strict=True):
            change = changes[prepared.at]
            said = deleted(index, change, item)
            if doubt.refused_again(item):
                said = doubtful(Kind.DELETE, index, change, item, said)
            results[prepared.at] = said


def _ids_into(results: list[Result | None], places: Sequence[int], changes: Sequence[Change]) -> None:
    """Make the ids of changes their results."""
    if isinstance(changes, Changes):
        ids = changes.ids
        for at in places:
            results[at] = ids[at]
    else:
        for at in places:
            results[at] = changes[at].id
