"""Writes: the five kinds as bulk requests, some chunks at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Generator, Iterator, Sequence

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.mutation_batch import MutationBatch
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

    async def write(self, kind: WriteKind, mutations: Sequence[Mutation]) -> list[ItemResult]:
        """Apply changes as if one after another and return a result for each, in order."""
        results: list[ItemResult | None] = [None] * len(mutations)
        try:
            for positions in rounds(mutations):
                await self._round(kind, mutations, positions, results)
        except _Stop as stop:
            failure = stop.__cause__
            assert isinstance(failure, StoreError)
            if all(result is None or result is failure for result in results):
                raise failure from failure.__cause__
            unsent = UnavailableError(f"not sent: an earlier part of the batch failed ({failure})")
            results = [unsent if result is None else result for result in results]
        return results  # type: ignore[return-value]

    async def _round(
        self,
        kind: WriteKind,
        mutations: Sequence[Mutation],
        positions: Sequence[int],
        results: list[ItemResult | None],
    ) -> None:
        """Apply changes of distinct ids, some chunks at a time."""
        running: set[asyncio.Task[None]] = set()
        chunks = self._prepared(kind, mutations, positions, results)
        first = next(chunks, None)
        if first is None:
            return
        if len(first) == len(positions):  # one chunk needs no task of its own
            await self._guarded(kind, mutations, first, results)
            return
        waiting = itertools.chain([first], chunks)
        # One more than are in flight: it prepares a chunk meanwhile, so that the server need not wait.
        slots = asyncio.Semaphore(self._bulk.concurrency)
        self._stopped = False
        running = {
            asyncio.create_task(self._worker(number, slots, kind, mutations, waiting, results))
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
        self,
        kind: WriteKind,
        mutations: Sequence[Mutation],
        positions: Sequence[int],
        results: list[ItemResult | None],
    ) -> Generator[Creates | list[Prepared], None, None]:
        index, bulk, most = self._index, self._bulk, self._max_bytes
        if kind is WriteKind.CREATE:
            if (
                isinstance(mutations, MutationBatch)
                and len(positions) == len(mutations)
                and fits(index, mutations)
            ):
                return creates_in_columns(index, bulk, most, mutations, results)
            return creates(index, bulk, most, mutations, positions, results)
        return chunks(index, bulk, most, kind, mutations, positions, results)

    async def _worker(
        self,
        number: int,
        slots: asyncio.Semaphore,
        kind: WriteKind,
        mutations: Sequence[Mutation],
        chunks: Iterator[Creates | list[Prepared]],
        results: list[ItemResult | None],
    ) -> None:
        """Prepare chunks and send each when there is a slot, until fewer are to be in flight."""
        while number <= self._bulk.concurrency:
            chunk = next(chunks, None)
            if chunk is None:
                return
            async with slots:
                if self._stopped:
                    return
                await self._guarded(kind, mutations, chunk, results)
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
        kind: WriteKind,
        mutations: Sequence[Mutation],
        chunk: Creates | list[Prepared],
        results: list[ItemResult | None],
    ) -> None:
        try:
            if isinstance(chunk, Creates):
                await self._create(mutations, chunk, results)
            elif kind is WriteKind.DELETE:
                await self._delete(mutations, chunk, results)
            else:
                merge = Merge(self._pool, self._index, self._bulk, kind, mutations, self._attempts)
                await merge.apply(chunk, results)
        except StoreError as error:
            self._stopped = True
            places = chunk.at if isinstance(chunk, Creates) else [prepared.at for prepared in chunk]
            for at in places:
                if results[at] is None:
                    results[at] = error
            raise _Stop from error

    async def _create(
        self, mutations: Sequence[Mutation], chunk: Creates, results: list[ItemResult | None]
    ) -> None:
        index, what = self._index, doing(WriteKind.CREATE, self._index)
        await index.prepare(self._pool, chunk.shapes())
        items = await self._bulk.send(self._pool, index, chunk.lines(index), what, creates=True)
        if all_made(items):
            _ids_into(results, chunk.at, mutations)
            return
        again = unparsed(items)
        if again:
            refused = [mutations[chunk.at[place]] for place in again]
            whole = [chunk.whole(json_of(mutation.id), *encoded(mutation)) for mutation in refused]
            sent = await self._bulk.send(self._pool, index, whole, what)
            for place, item in zip(again, sent, strict=True):
                items[place] = item
        for at, item in zip(chunk.at, items, strict=True):
            mutation = mutations[at]
            if item.status == 201:
                results[at] = mutation.id
                continue
            said = created(index, mutation, item)
            if doubt.refused_again(item):
                said = await doubt.created(self._pool, index, mutation, item, chunk.time, said)
            results[at] = said

    async def _delete(
        self, mutations: Sequence[Mutation], chunk: list[Prepared], results: list[ItemResult | None]
    ) -> None:
        index = self._index
        versions = [mutations[prepared.at].if_version for prepared in chunk]
        lines = [
            b'{"delete":{"_id":' + prepared.identity + condition(version) + b"}}\n"
            for prepared, version in zip(chunk, versions, strict=True)
        ]
        once = [version is not None for version in versions]
        items = await self._bulk.send(self._pool, index, lines, doing(WriteKind.DELETE, index), once=once)
        for prepared, item in zip(chunk, items, strict=True):
            mutation = mutations[prepared.at]
            said = deleted(index, mutation, item)
            if doubt.refused_again(item):
                said = doubtful(WriteKind.DELETE, index, mutation, item, said)
            results[prepared.at] = said


def _ids_into(results: list[ItemResult | None], places: Sequence[int], mutations: Sequence[Mutation]) -> None:
    """Make the ids of changes their results."""
    if isinstance(mutations, MutationBatch):
        ids = mutations.ids
        for at in places:
            results[at] = ids[at]
    else:
        for at in places:
            results[at] = mutations[at].id
