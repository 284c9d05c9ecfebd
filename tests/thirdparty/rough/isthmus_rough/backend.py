"""Records in a dict; pages, counts and aggregates as the support pretends, with recheck candidates."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from isthmus.errors import (
    UnsupportedError,
)
from isthmus.spi import (
    MORE,
    TRUE,
    After,
    AggregateRequest,
    AggregateResult,
    Capabilities,
    CountResult,
    Groups,
    ItemResult,
    Mutation,
    NativePlan,
    Page,
    PageRequest,
    PoolStats,
    Predicate,
    Record,
    TransactionExecutor,
    TransactionOptions,
    WriteKind,
    apply_in_order,
    cursor_position,
    merge_documents,
    new_version,
    predicate_text,
    sort_key,
    sort_records,
)
from isthmus_rough.config import RoughConfig
from isthmus_rough.support import RoughSupport, exact


# --8<-- [start:rows]
class _Rows:
    """A table's records, as `apply_in_order` reads and writes them."""

    def __init__(self, table: dict[str, Record]) -> None:
        self._table = table

    def version(self, id: str) -> str | None:
        record = self._table.get(id)
        return None if record is None else record.version

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        old, now = self._table.get(id), time.time_ns() // 1_000
        version = str(new_version())
        created = now if old is None else old.created_at
        self._table[id] = Record.stored(id, data, metadata, version, created, now)
        return version

    def merge(self, id: str, data: bytes, metadata: bytes) -> str:
        old = self._table[id]
        return self.put(id, *merge_documents(old.data, old.metadata, data, metadata))

    def delete(self, id: str) -> None:
        del self._table[id]


# --8<-- [end:rows]


class RoughBackend:
    """The seam, written by hand; the core evaluates what it does not answer exactly."""

    name = "rough"

    def __init__(self, config: RoughConfig) -> None:
        self._tables: dict[str, dict[str, Record]] = {}
        self._support = RoughSupport(config)
        self._page = config.page
        self.default_collection = config.table
        self.capabilities = Capabilities(conditional_create=config.creates, compare_and_set=config.compares)

    def support(self, collection: str) -> RoughSupport:
        """Return what it pretends to push down."""
        return self._support

    async def open(self, collection: str) -> None:
        """Make the table."""
        self._tables.setdefault(collection, {})

    async def close(self) -> None:
        """Do nothing."""

    async def ping(self) -> None:
        """Do nothing."""

    async def refresh(self, collection: str) -> None:
        """Do nothing: a write is seen at once."""

    async def collections(self) -> list[str]:
        """Return the tables' names."""
        return sorted(self._tables)

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return copies of the records."""
        table = self._tables[collection]
        return [_copy(table[id]) if id in table else None for id in ids]

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply the changes one after another."""
        assert not atomic, "no atomic batches here, and the core must know"
        return apply_in_order(_Rows(self._tables[collection]), kind, mutations)

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return a page of the records that it can evaluate, and the others as recheck candidates."""
        matching: list[Record] = []
        odd: list[Record] = []
        for record in self._tables[collection].values():
            if self._support.matches(request.where, record):
                (odd if self._support.odd(record) else matching).append(record)
        # Of pages without an order only the first carries those to recheck.
        carries = request.after is None or request.order is not None
        recheck = [_copy(record) for record in odd] if carries else []
        if request.order is None:
            return self._unordered(matching, recheck, request)
        assert self._support.orders(request.order), "asked for an order that the support refused"
        records = sort_records(matching, request.order)
        if request.after is not None and request.after.position is not None:
            key = sort_key(request.order)
            start = key(tuple(request.after.position))
            records = [r for r in records if key(cursor_position(r, request.order)) > start]
        end = request.offset + request.size_up_to(len(records))
        page = [_copy(record) for record in records[request.offset : end]]
        return Page(page, MORE if len(records) > end and page else None, recheck)

    def _unordered(self, matching: list[Record], recheck: list[Record], request: PageRequest) -> Page:
        assert request.offset == 0, "an offset has no meaning without an order"
        # A position is an id, so that what is deleted meanwhile does not shift the rest.
        begin = request.after.position[0] if request.after and request.after.position else ""
        rest = sorted((r for r in matching if _id(r) > begin), key=_id)
        # Each page evaluates the whole table: of a large one, fifty pages are enough.
        most = max(self._page, len(rest) // 50)
        page = [_copy(record) for record in rest[: request.size_up_to(most)]]
        more = len(rest) > len(page)
        return Page(page, After((_id(page[-1]),)) if more else None, recheck)

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count what it evaluates exactly."""
        matching = self._matching(collection, where)
        recheck = [_copy(record) for record in matching if self._support.odd(record)]
        return CountResult(len(matching) - len(recheck), recheck)

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Aggregate what it evaluates exactly."""
        assert self._support.aggregates(request.measures, request.by), "the support refused this"
        groups = Groups(request.measures)
        recheck = []
        for record in self._matching(collection, request.where):
            if self._support.odd(record):
                recheck.append(_copy(record))
            else:
                groups.add_record(record, request.by)
        return AggregateResult(groups, recheck)

    def _matching(self, collection: str, where: Predicate) -> list[Record]:
        assert exact(where, self._support), f"not exact: {predicate_text(where)}"
        return [r for r in self._tables[collection].values() if self._support.matches(where, r)]

    async def remove(self, collection: str, where: Predicate) -> int:
        """Clear; other deletions are the core's, since the capability is absent."""
        assert where == TRUE, "delete_where is not among the capabilities"
        removed = len(self._tables[collection])
        self._tables[collection].clear()
        return removed

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return what was pushed."""
        return NativePlan(f"look at {collection}: {predicate_text(request.where)}")

    async def release(self, collection: str, after: After) -> None:
        """Do nothing: a page's position is an id."""

    def begin(self, options: TransactionOptions) -> AbstractAsyncContextManager[TransactionExecutor]:
        """Refuse: there are no transactions."""
        raise UnsupportedError("rough has no transactions", capability="transactions")

    def stats(self) -> PoolStats:
        """Return nothing: there is no pool."""
        return PoolStats()

    async def native(self) -> Any:
        """Refuse: there is no client."""
        raise UnsupportedError("rough has no native client", capability="native")


def _id(record: Record) -> str:
    return record.id or ""


def _copy(record: Record) -> Record:
    return Record.stored(
        record.id or "",
        record._raw,
        record._raw_metadata,
        record.version or "",
        record._created,
        record._updated,
    )
