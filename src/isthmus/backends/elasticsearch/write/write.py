"""Writes: the five kinds as bulk requests, several chunks in flight; and clearing an index."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.mutation_batch import MutationBatch
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.errors import IndexGoneError
from isthmus.backends.elasticsearch.index import CollectionIndex
from isthmus.backends.elasticsearch.read.filter import ALL
from isthmus.backends.elasticsearch.read.point_in_time import PointInTime
from isthmus.backends.elasticsearch.write.bulk import BulkSender, cancel_and_wait, is_all_created
from isthmus.backends.elasticsearch.write.bulk_chunks import BatchEncoder, encode_mutation, split_rounds
from isthmus.backends.elasticsearch.write.bulk_lines import (
    BulkLine,
    CreateLines,
    encode_delete,
    json_of,
    version_condition,
)
from isthmus.backends.elasticsearch.write.bulk_results import (
    action_of,
    create_result,
    delete_result,
    find_rejected,
)
from isthmus.backends.elasticsearch.write.merge import MergeWrite
from isthmus.errors import StoreError, UnavailableError


class _Stop(Exception):
    """A request failed as a whole; nothing more is sent."""


@dataclass
class BulkWriter:
    """One write of one kind to one index."""

    pool: ClientPool
    index: CollectionIndex
    bulk: BulkSender
    kind: WriteKind
    mutations: Sequence[Mutation]
    attempts: int
    max_bytes: int

    def __post_init__(self) -> None:
        self._results: list[ItemResult | None] = [None] * len(self.mutations)
        self._stopped = False

    async def write(self) -> list[ItemResult]:
        """Apply the mutations as if one after another and return a result for each, in order.

        Raises the error of a request that failed as a whole if nothing else has a result.
        """
        results = self._results
        try:
            for positions in split_rounds(self.mutations):
                await self._write_round(positions)
        except _Stop as stop:
            failure = stop.__cause__
            assert isinstance(failure, StoreError)
            if all(result is None or result is failure for result in results):
                raise failure from failure.__cause__
            unsent = UnavailableError(f"not sent: an earlier part of the batch failed ({failure})")
            if isinstance(failure, IndexGoneError):
                unsent = IndexGoneError(f"not sent: {failure}")
            results = [unsent if result is None else result for result in results]
        return results  # type: ignore[return-value]

    async def _write_round(self, positions: Sequence[int]) -> None:
        """Apply mutations of distinct ids."""
        chunks = self._cut(positions)
        first = next(chunks, None)
        if first is None:
            return
        if len(first) == len(positions):  # one chunk needs no task of its own
            await self._send(first)
            return
        waiting = itertools.chain([first], chunks)
        # One task more than requests in flight: it encodes the next chunk, so that the server need not wait.
        slots = asyncio.Semaphore(self.bulk.concurrency)
        self._stopped = False
        running = {
            asyncio.create_task(self._run_worker(number, slots, waiting))
            for number in range(self.bulk.concurrency + 1)
        }
        try:
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            chunks.close()
            self._stopped = True
            if running:
                await _settle(running)

    def _cut(self, positions: Sequence[int]) -> Generator[CreateLines | list[BulkLine], None, None]:
        encoder = BatchEncoder(self.index, self.bulk, self.max_bytes, self.mutations, self._results)
        if self.kind is not WriteKind.CREATE:
            return encoder.lines(self.kind, positions)
        return encoder.creates_in_groups() if encoder.is_groupable(positions) else encoder.creates(positions)

    async def _run_worker(
        self, number: int, slots: asyncio.Semaphore, chunks: Iterator[CreateLines | list[BulkLine]]
    ) -> None:
        """Encode chunks and send each when there is a slot, until the concurrency falls below `number`."""
        while number <= self.bulk.concurrency:
            chunk = next(chunks, None)
            if chunk is None:
                return
            async with slots:
                if self._stopped:
                    return
                await self._send(chunk)
            await asyncio.sleep(0)  # a worker with an encoded chunk sends it before this one encodes another
        await slots.acquire()  # this worker's slot goes with it

    async def _send(self, chunk: CreateLines | list[BulkLine]) -> None:
        try:
            if isinstance(chunk, CreateLines):
                await self._create(chunk)
            elif self.kind is WriteKind.DELETE:
                await self._delete(chunk)
            else:
                target = self.pool, self.index, self.bulk
                merge = MergeWrite(*target, self.kind, self.mutations, self._results, self.attempts)
                await merge.apply(chunk)
        except StoreError as error:
            self._stopped = True
            positions = (
                chunk.positions if isinstance(chunk, CreateLines) else [line.position for line in chunk]
            )
            for position in positions:
                if self._results[position] is None:
                    self._results[position] = error
            raise _Stop from error

    async def _create(self, chunk: CreateLines) -> None:
        index, action = self.index, action_of(WriteKind.CREATE, self.index)
        await index.ensure_mapped(self.pool, chunk.shapes())
        items = await self.bulk.send(self.pool, index, chunk.encode(index), action, creates=True)
        mutations, results = self.mutations, self._results
        if is_all_created(items):
            # A batch has its ids as a list: no `Mutation` is made for them.
            batch = isinstance(mutations, MutationBatch)
            ids = mutations.ids if isinstance(mutations, MutationBatch) else ()
            for position in chunk.positions:
                results[position] = ids[position] if batch else mutations[position].id
            return
        rejected = find_rejected(items)
        if rejected:
            refused = [mutations[chunk.positions[number]] for number in rejected]
            lines = [
                chunk.encode_as_text(index, mutation.id, *encode_mutation(mutation)) for mutation in refused
            ]
            sent = await self.bulk.send(self.pool, index, lines, action)
            for number, item in zip(rejected, sent, strict=True):
                items[number] = item
        for position, item in zip(chunk.positions, items, strict=True):
            results[position] = await create_result(self.pool, index, mutations[position], item, chunk.time)

    async def _delete(self, chunk: list[BulkLine]) -> None:
        index = self.index
        mutations = [self.mutations[line.position] for line in chunk]
        lines = [
            encode_delete(line.id_json, version_condition(mutation.if_version, index))
            for line, mutation in zip(chunk, mutations, strict=True)
        ]
        once = [mutation.if_version is not None for mutation in mutations]
        action = action_of(WriteKind.DELETE, index)
        items = await self.bulk.send(self.pool, index, lines, action, once=once)
        for line, mutation, item in zip(chunk, mutations, items, strict=True):
            self._results[line.position] = delete_result(index, mutation, item)


async def _settle(running: set[asyncio.Task[None]]) -> None:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await cancel_and_wait(running)
        return
    # A chunk in flight may be applied: its results must be known.
    await asyncio.gather(*running, return_exceptions=True)


async def clear(pool: ClientPool, index: CollectionIndex, bulk: BulkSender, keep_alive: str) -> int:
    """Delete every record that is there now and return how many.

    Deleting the index itself would be faster, but other processes rely on its mapping (their
    records would silently not be indexed), and versions would start again.
    """
    removed = 0
    action = f"clear {index.name}"
    async with PointInTime.hold(pool, index, keep_alive, action) as pit:
        async for hits in pit.pages({"query": ALL}, bulk.size * 5, source=False):
            lines = [encode_delete(json_of(hit["_id"])) for hit in hits]
            for start in range(0, len(lines), bulk.size):
                for item in await bulk.send(pool, index, lines[start : start + bulk.size], action):
                    if item.is_index_missing:
                        raise index.mark_gone()
                    if item.status == 200:
                        removed += 1
                    elif item.status != 404:
                        raise item.error(action)
    return removed
