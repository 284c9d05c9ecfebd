"""The backend: collections as indices of one cluster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

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
    TransactionExecutor,
    TransactionOptions,
    WriteKind,
)
from isthmus._core.loop_pools import LoopBound
from isthmus._core.registry import import_driver
from isthmus._path import Path
from isthmus._query.ast import TRUE, Leaf, Measure, Predicate, SortKey
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus._value import replace
from isthmus.backends.elasticsearch import CAPABILITIES
from isthmus.backends.elasticsearch.aggregate import aggregated, computable
from isthmus.backends.elasticsearch.bulk import Bulk
from isthmus.backends.elasticsearch.client import ClientPool, open_client
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.backends.elasticsearch.grade import pushdown
from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.native_index import NativeIndex
from isthmus.backends.elasticsearch.native_read import NativeReader
from isthmus.backends.elasticsearch.order import sortable
from isthmus.backends.elasticsearch.read import Reader
from isthmus.backends.elasticsearch.remove import clear
from isthmus.backends.elasticsearch.write import Writer
from isthmus.errors import ClosedError, UnsupportedError

_FOUND = frozenset({200, 404})
_NATIVE = replace(CAPABILITIES, vectors=False, drop=False)


class _Collection:
    """An index and the pace of its bulk requests."""

    def __init__(self, name: str, config: ElasticsearchConfig) -> None:
        self.index = NativeIndex(name, config) if config.layout == "native" else Index(name, config)
        self.bulk = Bulk(config.bulk)


class _NativeSupport:
    """What can be pushed down for an index that others made."""

    def __init__(self, index: NativeIndex) -> None:
        self._index = index

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return how well a leaf's query fits."""
        return self._index.compiler.pushdown(leaf)

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether pages can come in this order."""
        return self._index.compiler.orders(order)

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[Path, ...]) -> bool:
        """Return that these are computed here."""
        return False


class _Support:
    """What can be pushed down for one index."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return how well a leaf's query fits."""
        return pushdown(leaf, self._index.fulltext, self._index.vectors)

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether pages can come in this order."""
        return sortable(order)

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[Path, ...]) -> bool:
        """Return whether these are computed at the server."""
        return computable(self._index.types, measures, by)


class ElasticsearchBackend:
    """One cluster; a client for each loop that a handle is used on."""

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
        """Return what can be done here."""
        return CAPABILITIES if self._config.layout == "mapped" else _NATIVE

    @property
    def default_collection(self) -> str:
        """Return the config's index."""
        return self._config.index

    def support(self, collection: str) -> _Support | _NativeSupport:
        """Return what can be pushed down."""
        index = self._known(collection).index
        return _NativeSupport(index) if isinstance(index, NativeIndex) else _Support(index)

    def _known(self, name: str) -> _Collection:
        found = self._collections.get(name)
        if found is None:
            found = self._collections[name] = _Collection(name, self._config)
        return found

    async def _pool(self) -> ClientPool:
        if self._closed:
            raise ClosedError("elasticsearch: this database is closed")
        return self._pools.current() or await self._pools.pool()

    async def _at(self, name: str) -> tuple[ClientPool, _Collection]:
        known = self._known(name)
        pool = await self._pool()
        await known.index.ready(pool)
        return pool, known

    async def open(self, collection: str) -> None:
        """Connect, and make the index or read its mapping."""
        self._closed = False
        await self._at(collection)

    async def close(self) -> None:
        """Give the clients back."""
        self._closed = True
        await self._pools.close()

    async def ping(self) -> None:
        """Ask the index for a count of nothing: needs the cluster, the index and our privileges."""
        pool, known = await self._at(self._config.index)
        body: dict[str, Any] = {"query": {"match_none": {}}}
        status, _ = await pool.call("POST", f"{known.index.url}/_count", body, doing="ping", told=_FOUND)
        if status == 404:
            raise known.index.gone()

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids, in real time."""
        if for_update:
            raise UnsupportedError("elasticsearch has no locks: use if_version", capability="for_update")
        pool, known = await self._at(collection)
        return await self._reading(pool, known.index).by_id(ids)

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply changes of one kind; there is no atomic batch here."""
        if atomic:
            raise UnsupportedError("elasticsearch has no atomic batches", capability="atomic_batch")
        self._refuse_native(kind.value)
        pool, known = await self._at(collection)
        writer = Writer(
            pool,
            known.index,
            known.bulk,
            attempts=self._config.update_attempts,
            max_bytes=self._config.bulk.bytes,
        )
        try:
            return await writer.write(kind, mutations)
        finally:
            # Also when it failed: parts of it may be there.
            known.index.written += 1

    async def _reader(self, collection: str) -> tuple[Reader, Index]:
        pool, known = await self._at(collection)
        index = known.index
        if index.visible < index.written and self._config.consistency == "read_your_writes":
            await self._make_visible(pool, index)
        return self._reading(pool, index), index

    def _refuse_native(self, doing: str) -> None:
        if self._config.layout == "native":
            raise UnsupportedError(
                f"{doing}: an index with layout 'native' is read only: what others expect of its"
                " documents is not known here",
                capability="write",
            )

    def _reading(self, pool: ClientPool, index: Index) -> Reader:
        config = self._config
        if isinstance(index, NativeIndex):
            return NativeReader(pool, index, keep_alive=config.keep_alive, slices=config.slices)
        return Reader(pool, index, keep_alive=config.keep_alive, slices=config.slices)

    async def _make_visible(self, pool: ClientPool, index: Index) -> None:
        written = index.written
        target = f"{index.url}/_refresh"
        status, answer = await pool.call("POST", target, doing=f"refresh {index.name}", told=_FOUND)
        if status == 404:
            raise index.gone()
        if answer["_shards"].get("failed"):
            return  # still dirty: the next search tries again
        index.visible = max(index.visible, written)

    async def refresh(self, collection: str) -> None:
        """Make earlier writes visible to every searcher."""
        pool, known = await self._at(collection)
        await self._make_visible(pool, known.index)

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page."""
        if request.for_update:
            raise UnsupportedError("elasticsearch has no locks: use if_version", capability="for_update")
        first = request.after is None or not (request.order is None or request.consistent)
        if first:
            reader, _ = await self._reader(collection)
        else:  # a stream goes on in its snapshot, whatever was written since
            pool, known = await self._at(collection)
            reader = self._reading(pool, known.index)
        return await (reader.stream(request) if request.order is None else reader.page(request))

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count the matching records."""
        reader, _ = await self._reader(collection)
        return await reader.count(where)

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Compute partial states."""
        reader, index = await self._reader(collection)
        return await aggregated(reader, index, request)

    async def remove(self, collection: str, where: Predicate) -> int:
        """Clear the collection; the mapping stays, since other processes rely on it."""
        self._refuse_native("delete")
        if where != TRUE:
            raise UnsupportedError("elasticsearch deletes by id", capability="delete_where")
        reader, index = await self._reader(collection)
        pool, known = await self._at(collection)
        try:
            return await clear(pool, known.index, known.bulk, reader)
        finally:
            index.written += 1

    async def drop(self, collection: str) -> None:
        """Delete the index, if it is there; the next call to the collection makes it anew."""
        self._refuse_native("drop")
        target = f"{self._known(collection).index.url}?ignore_unavailable=true"
        pool = await self._pool()
        await pool.call("DELETE", target, doing=f"drop {collection}", writes=True, told=_FOUND)
        self._collections.pop(collection, None)

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the query that would be sent, and how many records would be judged here."""
        reader, _ = await self._reader(collection)
        return await reader.explain(request)

    async def release(self, collection: str, after: After) -> None:
        """Give a stream's snapshot back."""
        pool, known = await self._at(collection)
        await self._reading(pool, known.index).release(after)

    async def collections(self) -> list[str]:
        """Return the names of the indices that isthmus made in this cluster."""
        pool = await self._pool()
        target = "/_mapping?filter_path=*.mappings._meta.isthmus"
        _, body = await pool.call("GET", target, doing="list collections")
        return sorted(body)

    def begin(self, options: TransactionOptions) -> AbstractAsyncContextManager[TransactionExecutor]:
        """Refuse: Elasticsearch has no transactions."""
        raise UnsupportedError("elasticsearch has no transactions", capability="transactions")

    def stats(self) -> PoolStats:
        """Return how this loop's connections are used."""
        pool = self._pools.current()
        return PoolStats() if pool is None else pool.stats()

    async def native(self) -> Any:
        """Return this loop's `AsyncElasticsearch`."""
        return (await self._pool()).native
