"""The memory backend: evaluates every record for every query. Slow and obvious, the reference for others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from isthmus._core.apply import apply_in_order, merge_documents, refuse_batch
from isthmus._core.capabilities import Capabilities
from isthmus._core.evaluation import select_matching
from isthmus._core.executor import (
    MORE,
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
    TransactionOptions,
    WriteKind,
)
from isthmus._ids import new_version
from isthmus._path import Path
from isthmus._query.aggregate import Groups
from isthmus._query.ast import RANKED, Leaf, Measure, Predicate, SortKey
from isthmus._query.codec import text
from isthmus._query.order import BY_ID, cursor_position, sort_key, sort_records
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus.backends.memory.fair_lock import FairLock
from isthmus.errors import TransactionError, UnsupportedError

if TYPE_CHECKING:
    from isthmus.backends.memory.config import MemoryConfig

CAPABILITIES = Capabilities(
    transactions=True,
    savepoints=True,
    isolation=frozenset({"read committed", "repeatable read", "serializable"}),
    for_update=True,
    atomic_batch=True,
    conditional_create=True,
    compare_and_set=True,
    delete_where=True,
    consistent_stream=True,
    drop=True,
)

Tables = dict[str, dict[str, Record]]


class _Support:
    def pushdown(self, leaf: Leaf) -> Pushdown:
        return Pushdown.NONE if isinstance(leaf, RANKED) else Pushdown.EXACT

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        return True

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[Path, ...]) -> bool:
        return True


_SUPPORT = _Support()


class _Snapshot:
    """The records of a consistent stream, and how many of them were returned."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.returned = 0


class MemoryExecutor:
    """An executor over a dict of tables, shared by the backend and a transaction."""

    def __init__(self, tables: Tables, snapshots: dict[int, _Snapshot]) -> None:
        self._tables = tables
        self._snapshots = snapshots

    @property
    def capabilities(self) -> Capabilities:
        """Return what memory can do: everything but durability, relevance, vectors and indexes."""
        return CAPABILITIES

    def support(self, collection: str) -> _Support:
        """Return that the evaluator takes everything."""
        return _SUPPORT

    def _table(self, collection: str) -> dict[str, Record]:
        return self._tables.setdefault(collection, {})

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none."""
        table = self._table(collection)
        return [None if (kept := table.get(id)) is None else _copy(kept) for id in ids]

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations one after another, on a copy if all must succeed; return one result for each."""
        table = self._table(collection)
        target = dict(table) if atomic else table
        results = apply_in_order(_MemoryRows(target), kind, mutations)
        if atomic:
            refused = refuse_batch(mutations, results)
            if refused is not None:
                return refused
            self._tables[collection] = target
        return results

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page; evaluates and sorts all records."""
        if request.consistent:
            return await self._from_snapshot(collection, request)
        records = await self._match(collection, request)
        return _cut_page(records, request)

    async def _select(self, collection: str, where: Predicate) -> list[Record]:
        """Return the matching records of the table as it is now; other tasks get their turn meanwhile."""
        return await select_matching(list(self._table(collection).values()), where)

    async def _match(self, collection: str, request: PageRequest) -> list[Record]:
        order = request.order or BY_ID
        records = sort_records(await self._select(collection, request.where), order)
        if request.after is not None and request.after.position is not None:
            key = sort_key(order)
            start = key(tuple(request.after.position))
            records = [record for record in records if key(cursor_position(record, order)) > start]
        return records

    async def _from_snapshot(self, collection: str, request: PageRequest) -> Page:
        if request.after is None:
            records = await self._match(collection, request)
            token = new_version()
            self._snapshots[token] = _Snapshot(records[request.offset :])
        else:
            token = request.after.token
        snapshot = self._snapshots[token]
        end = None if request.size is None else snapshot.returned + request.size
        records = [_copy(record) for record in snapshot.records[snapshot.returned : end]]
        snapshot.returned += len(records)
        if snapshot.returned < len(snapshot.records):
            return Page(records, After(token=token))
        del self._snapshots[token]
        return Page(records, None)

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Return the number of matching records."""
        return CountResult(len(await self._select(collection, where)))

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Return the states of the groups of matching records."""
        groups = Groups(request.measures)
        for record in await self._select(collection, request.where):
            groups.add_record(record, request.by)
        return AggregateResult(groups)

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records and return how many there were."""
        matching = await self._select(collection, where)
        table = self._table(collection)
        # A record that another task has written meanwhile is another one.
        unchanged = [id for record in matching if table.get(id := record.id or "") is record]
        for id in unchanged:
            del table[id]
        return len(unchanged)

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the predicate that is evaluated for each record."""
        return NativePlan(f"scan {collection} where {text(request.where)}")

    async def release(self, collection: str, after: After) -> None:
        """Forget the snapshot of a consistent stream."""
        self._snapshots.pop(after.token, None)

    async def open(self, collection: str) -> None:
        """Do nothing: there is nothing to connect to."""

    async def ping(self) -> None:
        """Do nothing."""

    async def refresh(self, collection: str) -> None:
        """Do nothing: a write is visible at once."""


def _copy_tables(tables: Tables) -> Tables:
    return {name: dict(table) for name, table in tables.items()}


def _copy(record: Record) -> Record:
    """Return a record that shares no mutable data with the stored one."""
    return Record.stored(
        record.id or "",
        record._raw,
        record._raw_metadata,
        record.version or "",
        record._created,
        record._updated,
    )


def _cut_page(records: list[Record], request: PageRequest) -> Page:
    end = None if request.size is None else request.offset + request.size
    chosen = [_copy(record) for record in records[request.offset : end]]
    more = end is not None and len(records) > end
    if request.order is None:
        return Page(chosen, After((chosen[-1].id,)) if more and chosen else None)
    return Page(chosen, MORE if more and chosen else None)


class _MemoryRows:
    """A table's records, as `apply_in_order` reads and writes them."""

    def __init__(self, table: dict[str, Record]) -> None:
        self._table = table
        self._now = time.time_ns() // 1_000

    def version(self, id: str) -> str | None:
        record = self._table.get(id)
        return None if record is None else record.version

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        old, version = self._table.get(id), str(new_version())
        created = self._now if old is None else old._created
        self._table[id] = Record.stored(id, data, metadata, version, created, self._now)
        return version

    def merge(self, id: str, data: bytes, metadata: bytes) -> str:
        old = self._table[id]
        return self.put(id, *merge_documents(old.data, old.metadata, data, metadata))

    def delete(self, id: str) -> None:
        del self._table[id]


class MemoryTransaction(MemoryExecutor):
    """An executor over a copy of the tables, which replaces them at commit."""

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a savepoint: leaving it by an exception undoes the writes since."""
        before = _copy_tables(self._tables)
        try:
            yield
        except BaseException:
            self._tables.clear()
            self._tables.update(before)
            raise


class MemoryBackend(MemoryExecutor):
    """A store that exists as long as its handle; may be used from any loop and thread."""

    name = "memory"

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__({}, {})
        self.default_collection = config.table
        self._lock = FairLock(config.timeout)

    async def close(self) -> None:
        """Do nothing: the records exist as long as the handle."""

    async def collections(self) -> list[str]:
        """Return the names of the tables with records, sorted."""
        return sorted(name for name, table in self._tables.items() if table)

    async def drop(self, collection: str) -> None:
        """Delete a table; the next write creates it again."""
        async with self._lock:
            self._tables.pop(collection, None)

    def stats(self) -> PoolStats:
        """Return zeros: there is no pool."""
        return PoolStats()

    async def native(self) -> Any:
        """Raise `UnsupportedError`: memory has no native client."""
        raise UnsupportedError("memory has no native client", capability="native")

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations once no transaction is open.

        Raises `PoolTimeoutError` if one is still open after `timeout` seconds.
        """
        async with self._lock:
            return await super().write(collection, kind, mutations, atomic=atomic)

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records once no transaction is open; see `write`."""
        async with self._lock:
            return await super().remove(collection, where)

    @contextlib.asynccontextmanager
    async def begin(self, options: TransactionOptions) -> AsyncIterator[MemoryTransaction]:
        """Open a transaction on a copy of the tables: one at a time, except those that only read."""
        if options.read_only:
            yield _ReadOnlyTransaction(_copy_tables(self._tables), {})
            return
        async with self._lock:
            tables = _copy_tables(self._tables)
            yield MemoryTransaction(tables, {})
            self._tables.clear()
            self._tables.update(tables)


class _ReadOnlyTransaction(MemoryTransaction):
    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        raise TransactionError("this transaction is read-only")

    async def remove(self, collection: str, where: Predicate) -> int:
        raise TransactionError("this transaction is read-only")
