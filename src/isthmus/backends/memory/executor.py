"""The executor of memory: evaluates every record for every query; slow, obvious, the reference for others."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from isthmus._core.apply import apply_in_order, merge_documents, refuse_batch
from isthmus._core.capabilities import Capabilities
from isthmus._core.evaluation import add_records, select_matching, sort_matching
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
    WriteKind,
)
from isthmus._core.unique_index import UniqueChanges
from isthmus._ids import new_version
from isthmus._query.aggregate import Groups
from isthmus._query.ast import RANKED, Leaf, Measure, Predicate, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.codec import text
from isthmus._query.order import BY_ID, cursor_position, sort_key
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus._values import decode, trim

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
    changes=True,
    drop=True,
    unique=True,
)

Table: TypeAlias = dict[str, Record]
Tables: TypeAlias = dict[str, Table]


class _Support:
    def pushdown(self, leaf: Leaf) -> Pushdown:
        return Pushdown.NONE if isinstance(leaf, RANKED) else Pushdown.EXACT

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        return True

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        return True


_SUPPORT = _Support()


class _Snapshot:
    """The records of a stream, and how many of them were returned."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.returned = 0


class MemoryExecutor(abc.ABC):
    """Evaluates requests over the tables that a subclass sees: the database's or a transaction's."""

    def __init__(self) -> None:
        self._snapshots: dict[int, _Snapshot] = {}

    @abc.abstractmethod
    def _table(self, collection: str) -> Mapping[str, Record]:
        """Return all records of a collection by id."""

    @abc.abstractmethod
    def _record(self, collection: str, id: str) -> Record | None:
        """Return one record."""

    @property
    def capabilities(self) -> Capabilities:
        """Return what memory can do: everything but durability, relevance, vectors and indexes."""
        return CAPABILITIES

    def support(self, collection: str) -> _Support:
        """Return that the evaluator takes everything."""
        return _SUPPORT

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none."""
        records = [self._record(collection, id) for id in ids]
        return [None if record is None else copy_record(record) for record in records]

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page; evaluates and sorts all records, for a stream once."""
        if request.consistent or request.streamed or request.order is None:
            return await self._from_snapshot(collection, request)
        records = await self._match(collection, request)
        return _cut_page(records, request)

    async def _select(self, collection: str, where: Predicate) -> list[Record]:
        """Return the matching records of the table as it is now; other tasks get their turn meanwhile."""
        return await select_matching(list(self._table(collection).values()), where)

    async def _match(self, collection: str, request: PageRequest) -> list[Record]:
        order = request.order or BY_ID
        records = await sort_matching(await self._select(collection, request.where), order)
        if request.after is not None and request.after.position is not None:
            key = sort_key(order)
            start = key(tuple(request.after.position))
            records = [record for record in records if key(cursor_position(record, order)) > start]
        return records

    async def _from_snapshot(self, collection: str, request: PageRequest) -> Page:
        after = request.after
        if after is not None and (after.position is None or after.token in self._snapshots):
            token = after.token
        else:
            records = await self._match(collection, request)
            token = new_version()
            self._snapshots[token] = _Snapshot(records[request.offset :])
        snapshot = self._snapshots[token]
        end = None if request.size is None else snapshot.returned + request.size
        records = [copy_record(record) for record in snapshot.records[snapshot.returned : end]]
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
        await add_records(groups, await self._select(collection, request.where), request.by)
        return AggregateResult(groups)

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the predicate that is evaluated for each record."""
        return NativePlan(f"scan {collection} where {text(request.where)}")

    async def release(self, collection: str, after: After) -> None:
        """Forget the snapshot of a stream."""
        self._snapshots.pop(after.token, None)

    @abc.abstractmethod
    async def open(self, collection: str) -> None:
        """Make the declared unique fields of a collection unique; there is nothing to connect to."""

    async def ping(self) -> None:  # noqa: B027 - complete
        """Do nothing."""

    async def refresh(self, collection: str) -> None:  # noqa: B027 - complete
        """Do nothing: a write is visible at once."""


def copy_record(record: Record) -> Record:
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
    chosen = [copy_record(record) for record in records[request.offset : end]]
    more = end is not None and len(records) > end
    return Page(chosen, MORE if more and chosen else None)


def apply_batch(
    read: Callable[[str], Record | None],
    unique: UniqueChanges,
    kind: WriteKind,
    mutations: Sequence[Mutation],
    *,
    atomic: bool,
) -> tuple[list[ItemResult], dict[str, Record | None]]:
    """Return the results of mutations, and the changes to store: none of a batch that is refused.

    `unique` gets the changes of unique values.
    """
    changes: dict[str, Record | None] = {}
    results = apply_in_order(_MemoryRows(read, changes, unique), kind, mutations)
    refused = refuse_batch(mutations, results) if atomic else None
    return (results, changes) if refused is None else (refused, {})


class _MemoryRows:
    """A table's records, as `apply_in_order` reads and writes them."""

    def __init__(
        self,
        read: Callable[[str], Record | None],
        changes: dict[str, Record | None],
        unique: UniqueChanges,
    ) -> None:
        self._read = read
        self._changes = changes
        self._unique = unique
        self._now = time.time_ns() // 1_000
        self._old: Record | None = None
        """The record whose version was asked for last: a write of it follows."""

    def version(self, id: str) -> str | None:
        changes = self._changes
        self._old = record = changes[id] if id in changes else self._read(id)
        return None if record is None else record.version

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        if self._unique.declared:
            self._unique.put(id, decode(data))
        old, version = self._old, str(new_version())
        created = self._now if old is None else old._created
        kept = b"{}" if metadata == b"{}" else trim(metadata)
        self._changes[id] = Record.stored(id, trim(data), kept, version, created, self._now)
        return version

    def merge(self, id: str, data: bytes, metadata: bytes) -> str:
        old = self._old
        assert old is not None  # `version` has found it
        return self.put(id, *merge_documents(old.data, old.metadata, data, metadata))

    def delete(self, id: str) -> None:
        if self._unique.declared:
            self._unique.remove(id)
        self._changes[id] = None
