"""Records in a dict, judged by the evaluator. Slow and obvious: every other backend is compared with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from isthmus._core.apply import apply_in_order, merge_documents, refuse_batch
from isthmus._core.capabilities import Capabilities
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
from isthmus._query.evaluate import matches
from isthmus._query.order import BY_ID, cursor_position, sort_key, sort_records
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus.backends.memory.turn import Turn
from isthmus.errors import (
    TransactionError,
    UnsupportedError,
)

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
    """What a consistent stream has left to give."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.at = 0


class MemoryExecutor:
    """The verbs over a dict of tables; a backend and a transaction share them."""

    def __init__(self, tables: Tables, snapshots: dict[int, _Snapshot]) -> None:
        self._tables = tables
        self._snapshots = snapshots

    @property
    def capabilities(self) -> Capabilities:
        """Return what memory can do: all but durability, relevance and indexes."""
        return CAPABILITIES

    def support(self, collection: str) -> _Support:
        """Return that everything is judged by the evaluator here."""
        return _SUPPORT

    def _table(self, collection: str) -> dict[str, Record]:
        return self._tables.setdefault(collection, {})

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records by id."""
        table = self._table(collection)
        return [None if (kept := table.get(wanted)) is None else _given(kept) for wanted in ids]

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply the changes one after another, on a copy if all must go well."""
        table = self._table(collection)
        target = dict(table) if atomic else table
        results = apply_in_order(_Rows(target), kind, mutations)
        if atomic:
            refused = refuse_batch(mutations, results)
            if refused is not None:
                return refused
            self._tables[collection] = target
        return results

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page by judging and sorting all records."""
        if request.consistent:
            return self._from_snapshot(collection, request)
        records = self._matching(collection, request)
        return _page(records, request)

    def _matching(self, collection: str, request: PageRequest) -> list[Record]:
        order = request.order or BY_ID
        records = [record for record in self._table(collection).values() if matches(request.where, record)]
        records = sort_records(records, order)
        if request.after is not None and request.after.position is not None:
            key = sort_key(order)
            start = key(tuple(request.after.position))
            records = [record for record in records if key(cursor_position(record, order)) > start]
        return records

    def _from_snapshot(self, collection: str, request: PageRequest) -> Page:
        if request.after is None:
            token = new_version()
            self._snapshots[token] = _Snapshot(self._matching(collection, request)[request.offset :])
        else:
            token = request.after.token
        snapshot = self._snapshots[token]
        end = None if request.size is None else snapshot.at + request.size
        records = [_given(record) for record in snapshot.records[snapshot.at : end]]
        snapshot.at += len(records)
        if snapshot.at < len(snapshot.records):
            return Page(records, After(token=token))
        del self._snapshots[token]
        return Page(records, None)

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count by judging each record."""
        return CountResult(sum(matches(where, record) for record in self._table(collection).values()))

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Aggregate by judging each record."""
        groups = Groups(request.measures)
        for record in self._table(collection).values():
            if matches(request.where, record):
                groups.add_record(record, request.by)
        return AggregateResult(groups)

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete by judging each record."""
        table = self._table(collection)
        matching = [key for key, record in table.items() if matches(where, record)]
        for key in matching:
            del table[key]
        return len(matching)

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the predicate that the evaluator judges."""
        return NativePlan(f"scan {collection} where {text(request.where)}")

    async def release(self, collection: str, after: After) -> None:
        """Drop a consistent stream's snapshot."""
        self._snapshots.pop(after.token, None)

    async def open(self, collection: str) -> None:
        """Do nothing: there is nothing to connect to."""

    async def ping(self) -> None:
        """Do nothing."""

    async def refresh(self, collection: str) -> None:
        """Do nothing: a write is seen at once."""


def _given(record: Record) -> Record:
    """Return a stored record with data of its own, which its reader may change."""
    return Record.stored(
        record.id or "",
        record._raw,
        record._raw_metadata,
        record.version or "",
        record._created,
        record._updated,
    )


def _page(records: list[Record], request: PageRequest) -> Page:
    end = None if request.size is None else request.offset + request.size
    chosen = [_given(record) for record in records[request.offset : end]]
    more = end is not None and len(records) > end
    if request.order is None:
        return Page(chosen, After((chosen[-1].id,)) if more and chosen else None)
    return Page(chosen, MORE if more and chosen else None)


class _Rows:
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
    """A private copy of the tables, put in place at commit; one at a time."""

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo what was done since, if the block raises."""
        before = {name: dict(table) for name, table in self._tables.items()}
        try:
            yield
        except BaseException:
            self._tables.clear()
            self._tables.update(before)
            raise


class MemoryBackend(MemoryExecutor):
    """A store that lives and dies with its handle; usable from any loop and thread."""

    name = "memory"

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__({}, {})
        self.default_collection = config.table
        self._turn = Turn(config.timeout)

    async def close(self) -> None:
        """Do nothing: the records go with the handle."""

    async def collections(self) -> list[str]:
        """Return the names of the tables that were written to."""
        return sorted(name for name, table in self._tables.items() if table)

    async def drop(self, collection: str) -> None:
        """Forget a table."""
        async with self._turn:
            self._tables.pop(collection, None)

    def stats(self) -> PoolStats:
        """Return nothing: there is no pool."""
        return PoolStats()

    async def native(self) -> Any:
        """Refuse: there is no client behind memory."""
        raise UnsupportedError("memory has no native client", capability="native")

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply the changes when no transaction is open."""
        async with self._turn:
            return await super().write(collection, kind, mutations, atomic=atomic)

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete when no transaction is open."""
        async with self._turn:
            return await super().remove(collection, where)

    @contextlib.asynccontextmanager
    async def begin(self, options: TransactionOptions) -> AsyncIterator[MemoryTransaction]:
        """Run a transaction on a copy of the tables, one at a time unless it only reads."""
        waiting: Callable[[], Any] = contextlib.nullcontext if options.read_only else lambda: self._turn
        async with waiting():
            tables = {name: dict(table) for name, table in self._tables.items()}
            transaction = _ReadOnly(tables, {}) if options.read_only else MemoryTransaction(tables, {})
            yield transaction
            if not options.read_only:
                self._tables.clear()
                self._tables.update(tables)


class _ReadOnly(MemoryTransaction):
    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        raise TransactionError("this transaction is read-only")

    async def remove(self, collection: str, where: Predicate) -> int:
        raise TransactionError("this transaction is read-only")
