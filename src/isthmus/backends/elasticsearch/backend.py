"""The backend: collections as indices of one cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from isthmus._core.capabilities import Capabilities
from isthmus._core.executor import (
    After,
    AggregateRequest,
    AggregateResult,
    CountResult,
    ItemResult,
    Mutation,
    NativePlan,
    Page,
    PageRequest,
    PoolStats,
    Support,
    TransactionExecutor,
    TransactionOptions,
    WriteKind,
)
from isthmus._core.loop_pools import LoopBound
from isthmus._core.registry import import_driver
from isthmus._query.aggregate import Groups
from isthmus._query.ast import TRUE, Leaf, Measure, Predicate, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus.backends.elasticsearch.capabilities import CAPABILITIES, EXTERNAL_CAPABILITIES
from isthmus.backends.elasticsearch.client import FOUND, ClientPool, open_client
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.backends.elasticsearch.errors import IndexGoneError, IndexMissingError, NoIndexError
from isthmus.backends.elasticsearch.external.index import ExternalIndex
from isthmus.backends.elasticsearch.external.reader import ExternalReader
from isthmus.backends.elasticsearch.index import CollectionIndex
from isthmus.backends.elasticsearch.read.aggregate import aggregate, can_aggregate
from isthmus.backends.elasticsearch.read.order import can_sort
from isthmus.backends.elasticsearch.read.pushdown import pushdown
from isthmus.backends.elasticsearch.read.reader import IndexReader, index_of
from isthmus.backends.elasticsearch.write.bulk import BulkSender
from isthmus.backends.elasticsearch.write.write import BulkWriter, clear
from isthmus.errors import Applied, ClosedError, IsthmusError, UnsupportedError

R = TypeVar("R")
# Attempts at a call whose index is replaced by another one of its name while it runs.
_ATTEMPTS = 3


class _Collection:
    """An index and the sender of its bulk requests."""

    def __init__(self, name: str, config: ElasticsearchConfig) -> None:
        index = ExternalIndex if config.layout == "native" else CollectionIndex
        self.index = index(name, config)
        self.bulk = BulkSender(config.bulk)


class _Support:
    """Answers the planner for an index of isthmus."""

    def __init__(self, index: CollectionIndex) -> None:
        self._index = index

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return how closely a leaf's query matches its meaning."""
        return pushdown(leaf, self._index.fulltext, self._index.vectors)

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether pages can come in this order."""
        return can_sort(order)

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        """Return whether the server computes these."""
        return can_aggregate(self._index.types, measures, by)


class ElasticsearchBackend:
    """One cluster; a client for each event loop that a handle is used on.

    A write or `open` makes a missing index; a read of one finds nothing, so that a collection that
    another handle dropped is empty.
    """

    name = "elasticsearch"

    def __init__(self, config: ElasticsearchConfig) -> None:
        import_driver("elasticsearch", extra="elasticsearch")
        import_driver("aiohttp", extra="elasticsearch")
        self._config = config
        self._pools: LoopBound[ClientPool] = LoopBound(config.pool_key(), lambda: open_client(config))
        self._collections: dict[str, _Collection] = {}
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        """Return the capabilities of the config's layout."""
        return CAPABILITIES if self._config.layout == "mapped" else EXTERNAL_CAPABILITIES

    @property
    def default_collection(self) -> str:
        """Return the config's index."""
        return self._config.index

    def support(self, collection: str) -> Support:
        """Return what the planner can push down; no I/O."""
        index = self._collection(collection).index
        return index.compiler if isinstance(index, ExternalIndex) else _Support(index)

    def _collection(self, name: str) -> _Collection:
        state = self._collections.get(name)
        if state is None or state.index.is_gone:
            was_gone = state is not None
            state = self._collections[name] = _Collection(name, self._config)
            # Of another index nothing is known; it may be the same one, under another alias.
            state.index.written = int(was_gone)
        return state

    async def _pool(self) -> ClientPool:
        if self._closed:
            raise ClosedError("elasticsearch: this database is closed")
        return self._pools.current() or await self._pools.pool()

    async def _ensure_ready(self, name: str, *, create: bool) -> tuple[ClientPool, _Collection]:
        """Return the pool and the state of a collection whose index exists.

        Raises `IndexMissingError` for a missing index if it is not to be created, `IndexGoneError` if
        it was replaced since.
        """
        state = self._collection(name)
        pool = await self._pool()
        await state.index.ensure_ready(pool, create=create)
        return pool, state

    async def open(self, collection: str) -> None:
        """Connect, and create the index or read its mapping."""
        self._closed = False
        await _repeat_if_gone(lambda: self._ensure_ready(collection, create=True))

    async def close(self) -> None:
        """Release the clients."""
        self._closed = True
        await self._pools.close()

    async def ping(self) -> None:
        """Count nothing: needs the cluster, the default index and our privileges; one request."""

        async def count() -> None:
            pool, state = await self._ensure_ready(self._config.index, create=True)
            body: dict[str, Any] = {"query": {"match_none": {}}}
            target = f"{state.index.url}/_count"
            status, _ = await pool.call("POST", target, body, action="ping", expected=FOUND)
            if status == 404:
                raise state.index.mark_gone()

        await _repeat_if_gone(count)

    # Writes

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations of one kind; there is no atomic batch here.

        Mutations whose index was gone are sent again to the one that the name stands for now, which
        is created if there is none: nothing of them was applied.
        """
        if atomic:
            raise UnsupportedError("elasticsearch has no atomic batches", capability="atomic_batch")
        self._refuse_external(kind.value)
        results = await self._write_once(collection, kind, mutations)
        for _ in range(_ATTEMPTS - 1):
            gone = [position for position, result in enumerate(results) if _is_repeatable(result)]
            if not gone:
                break
            try:
                again = await self._write_once(collection, kind, [mutations[position] for position in gone])
            except IsthmusError as error:
                if len(gone) == len(results):
                    raise
                again = [error] * len(gone)
            for position, result in zip(gone, again, strict=True):
                results[position] = result
        return results

    async def _write_once(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation]
    ) -> list[ItemResult]:
        try:
            pool, state = await self._ensure_ready(collection, create=True)
        except IndexGoneError as error:
            return [error] * len(mutations)
        limits = self._config.update_attempts, self._config.bulk.bytes
        writer = BulkWriter(pool, state.index, state.bulk, kind, mutations, *limits)
        try:
            return await writer.write()
        except IndexGoneError as error:
            return [error] * len(mutations)
        finally:
            # Also when it failed: parts of it may be applied.
            state.index.written += 1

    async def remove(self, collection: str, where: Predicate) -> int:
        """Clear the collection; the mapping stays, since other processes rely on it."""
        self._refuse_external("delete")
        if where != TRUE:
            raise UnsupportedError("elasticsearch deletes by id", capability="delete_where")

        async def clear_once() -> int:
            pool, state = await self._ensure_visible(collection)
            try:
                return await clear(pool, state.index, state.bulk, self._config.keep_alive)
            finally:
                state.index.written += 1

        try:
            return await _repeat_if_gone(clear_once)
        except IndexMissingError:
            return 0

    async def drop(self, collection: str) -> None:
        """Delete the index if it is there; the next write to the collection creates it again."""
        self._refuse_external("drop")
        target = f"{self._collection(collection).index.name_url}?ignore_unavailable=true"
        pool = await self._pool()
        await pool.call("DELETE", target, action=f"drop {collection}", writes=True, expected=FOUND)
        self._collections.pop(collection, None)

    def _refuse_external(self, action: str) -> None:
        if self._config.layout == "native":
            raise UnsupportedError(
                f"{action}: an index with layout 'native' is read only: what its other writers expect of"
                " documents is not known here",
                capability="write",
            )

    # Reads

    async def _ensure_visible(self, collection: str) -> tuple[ClientPool, _Collection]:
        """Return the state of a collection, refreshed if this handle's own writes require it."""
        pool, state = await self._ensure_ready(collection, create=False)
        index = state.index
        if index.visible < index.written and self._config.consistency == "read_your_writes":
            await self._refresh(pool, index)
        return pool, state

    async def _reader(self, collection: str, *, fresh: bool = True) -> IndexReader:
        """Return a reader; a `fresh` one sees this handle's own writes."""
        if fresh:
            pool, state = await self._ensure_visible(collection)
        else:
            pool, state = await self._ensure_ready(collection, create=False)
        return self._make_reader(pool, state.index)

    def _make_reader(self, pool: ClientPool, index: CollectionIndex) -> IndexReader:
        keep_alive, slices = self._config.keep_alive, self._config.slices
        if isinstance(index, ExternalIndex):
            return ExternalReader(pool, index, keep_alive=keep_alive, slices=slices)
        return IndexReader(pool, index, keep_alive=keep_alive, slices=slices)

    async def _refresh(self, pool: ClientPool, index: CollectionIndex) -> None:
        written = index.written
        target = f"{index.url}/_refresh"
        status, answer = await pool.call("POST", target, action=f"refresh {index.name}", expected=FOUND)
        if status == 404:
            raise index.mark_gone()
        if answer["_shards"].get("failed"):
            return  # still dirty: the next search tries again
        index.visible = max(index.visible, written)

    async def refresh(self, collection: str) -> None:
        """Make earlier writes visible to searches by any handle; one request."""

        async def refresh_once() -> None:
            pool, state = await self._ensure_ready(collection, create=False)
            await self._refresh(pool, state.index)

        # Without an index there is nothing that could be made visible.
        with contextlib.suppress(IndexMissingError):
            await _repeat_if_gone(refresh_once)

    async def _read(
        self, collection: str, call: Callable[[IndexReader], Awaitable[R]], *, fresh: bool = True
    ) -> R:
        """Read with a reader of the index that the name stands for; see `_reader`."""

        async def read_once() -> R:
            reader = await self._reader(collection, fresh=fresh)
            found = await call(reader)
            await reader.confirm()
            return found

        return await _repeat_if_gone(read_once)

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids, in real time; a request for each 1,000 ids."""
        _refuse_locks(for_update)
        try:
            return await self._read(collection, lambda reader: reader.by_id(ids), fresh=False)
        except IndexMissingError:
            return [None] * len(ids)

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page."""
        _refuse_locks(request.for_update)
        ordered = request.order is not None
        if request.after is not None and request.after.token is not None:
            # It continues in its point in time of its index, whatever has become of the name since.
            reader = self._make_reader(await self._pool(), index_of(request.after))
            return await (reader.page(request) if ordered else reader.stream(request))
        try:
            return await self._read(
                collection, lambda reader: reader.page(request) if ordered else reader.stream(request)
            )
        except IndexMissingError:
            return Page([], None)

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count the matching records."""
        try:
            return await self._read(collection, lambda reader: reader.count(where))
        except IndexMissingError:
            return CountResult(0)

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Compute partial states."""
        try:
            return await self._read(collection, lambda reader: aggregate(reader, request))
        except IndexMissingError:
            return AggregateResult(Groups(request.measures))

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the query that would be sent, and how many records would be evaluated client-side."""
        await self.open(collection)
        return await self._read(collection, lambda reader: reader.explain(request))

    async def release(self, collection: str, after: After) -> None:
        """Release a stream's point in time."""
        await self._make_reader(await self._pool(), index_of(after)).release(after)

    # The cluster

    def terminate(self) -> None:
        """Drop the connections of all loops without waiting."""
        self._pools.discard()

    async def collections(self) -> list[str]:
        """Return the names of the indices that isthmus made in this cluster, sorted."""
        pool = await self._pool()
        target = "/_mapping?filter_path=*.mappings._meta.isthmus"
        _, body = await pool.call("GET", target, action="list collections")
        return sorted(body)

    def begin(self, options: TransactionOptions) -> AbstractAsyncContextManager[TransactionExecutor]:
        """Raise `UnsupportedError`: Elasticsearch has no transactions."""
        raise UnsupportedError("elasticsearch has no transactions", capability="transactions")

    def stats(self) -> PoolStats:
        """Return how this loop's connections are used."""
        pool = self._pools.current()
        return PoolStats() if pool is None else pool.stats()

    async def native(self) -> Any:
        """Return this loop's `AsyncElasticsearch`."""
        return (await self._pool()).native


def _is_repeatable(result: ItemResult) -> bool:
    return isinstance(result, IndexGoneError) and result.applied is Applied.NO


async def _repeat_if_gone(call: Callable[[], Awaitable[R]]) -> R:
    """Return what a call returns, which is repeated while the index that it found is gone."""
    gone: IndexGoneError | None = None
    for _ in range(_ATTEMPTS - 1):
        try:
            return await call()
        except IndexGoneError as error:
            gone = error
        except NoIndexError as error:
            if gone is None:
                raise
            raise gone from error
    return await call()


def _refuse_locks(for_update: bool) -> None:
    if for_update:
        raise UnsupportedError("elasticsearch has no locks: use if_version", capability="for_update")
