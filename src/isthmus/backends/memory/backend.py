"""The memory backend: a store that exists as long as its handle."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus._core.changes import ChangePage, Position, StoredChange
from isthmus._core.executor import ItemResult, Mutation, PoolStats, TransactionOptions, WriteKind
from isthmus._core.unique import Duplicate, Unique, has_duplicates, missing_unique, unique_of
from isthmus._core.unique_index import DuplicateSearch
from isthmus._index_annotation import Declarations
from isthmus._query.ast import Predicate
from isthmus._record import Record
from isthmus._value import replace
from isthmus.backends.memory.committed import Committed
from isthmus.backends.memory.executor import MemoryExecutor, copy_record
from isthmus.backends.memory.transaction import MemoryTransaction
from isthmus.errors import UnsupportedError

if TYPE_CHECKING:
    from isthmus.backends.memory.config import MemoryConfig


class MemoryBackend(MemoryExecutor):
    """A store that exists as long as its handle; may be used from any loop and thread."""

    name = "memory"

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.default_collection = config.table
        self._committed = Committed(config.timeout, changes=config.changes, keep=config.changes_keep)
        self._declared = {
            name: unique_of(groups) for name, groups in config.unique_fields(config.table).items()
        }

    def _table(self, collection: str) -> Mapping[str, Record]:
        return self._committed.table(collection)

    def _record(self, collection: str, id: str) -> Record | None:
        return self._committed.table(collection).get(id)

    def declare(self, collection: str, indexes: Declarations) -> bool:
        """Record a model's unique fields; there are no indexes. Return whether any is new."""
        before = self._declared.get(collection, frozenset())
        self._declared[collection] = before | unique_of((name,) for name in indexes.get("unique", ()))
        return len(self._declared[collection]) > len(before)

    async def open(self, collection: str) -> None:
        """Make the declared unique fields of an empty collection unique; there is nothing to connect to.

        Raises `ConfigError` for a collection with records that is not unique by one of them.
        """
        wanted = self._declared.get(collection, frozenset())
        if not wanted.issubset(self._committed.unique(collection).declared):
            async with self._alone(collection):
                declared = frozenset(self._committed.unique(collection).declared)
                if not wanted <= declared and self._table(collection):
                    raise missing_unique(collection, wanted - declared)
                self._committed.declare(collection, declared | wanted)

    async def find_duplicates(self, collection: str, unique: Unique) -> list[Duplicate]:
        """Return values that several records have, each with some of their ids; 20 values at most."""
        search = DuplicateSearch(unique)
        for id, record in self._table(collection).items():
            search.add(id, record.data)
        return search.duplicates()

    async def make_unique(self, collection: str, unique: Unique) -> None:
        """Declare fields unique while writers wait; raises `ConfigError` that names the duplicates."""
        async with self._alone(collection):
            found = await self.find_duplicates(collection, unique)
            if found:
                raise has_duplicates(collection, unique, found)
            self._committed.declare(collection, {*self._committed.unique(collection).declared, unique})

    async def end_unique(self, collection: str, unique: Unique) -> None:
        """End a declaration; a missing one is not an error."""
        async with self._alone(collection):
            self._committed.declare(collection, {*self._committed.unique(collection).declared} - {unique})

    @contextlib.asynccontextmanager
    async def _alone(self, collection: str) -> AsyncIterator[None]:
        """Wait until no transaction has written the collection; single writes do not wait in between."""
        async with self.begin(TransactionOptions()) as transaction:
            await transaction.lock_table(collection)
            yield

    async def close(self) -> None:
        """Do nothing: the records exist as long as the handle."""

    async def collections(self) -> list[str]:
        """Return the names of the tables with records, sorted."""
        return sorted(name for name, table in self._committed.tables.items() if table)

    async def drop(self, collection: str) -> None:
        """Delete a table once nobody writes its records; the next write creates it again."""
        async with self._alone(collection):
            self._committed.drop(collection)
            self._committed.declare(collection, self._declared.get(collection, frozenset()))

    async def changes_position(self, collection: str) -> Position:
        """Return the position after the last commit."""
        return self._committed.changes_position(collection)

    async def read_changes(self, collection: str, position: Position, limit: int) -> ChangePage:
        """Return changes after a position; several of one id come as its last one."""
        page = self._committed.read_changes(collection, position, limit)
        return replace(page, changes=_copy_records(page.changes))

    async def read_records(
        self, collection: str, position: Position, limit: int
    ) -> tuple[list[StoredChange], bool]:
        """Return records after an id in the order of ids, and whether there are more; sorts all ids."""
        found, more = self._committed.read_records(collection, position, limit)
        return _copy_records(found), more

    async def wait_for_changes(self, collection: str, position: Position, seconds: float) -> None:
        """Return after the next commit, at the latest after `seconds`."""
        await self._committed.wait_for_changes(collection, position, seconds)

    async def make_changes(self, collection: str) -> None:
        """Keep the changes of a collection from now on."""
        self._committed.make_journal(collection)

    async def end_changes(self, collection: str) -> None:
        """Keep no changes of a collection any more."""
        self._committed.end_journal(collection)

    def stats(self) -> PoolStats:
        """Return zeros: there is no pool."""
        return PoolStats()

    async def native(self) -> Any:
        """Raise `UnsupportedError`: memory has no native client."""
        raise UnsupportedError("memory has no native client", capability="native")

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations once no open transaction has written their records.

        Raises `PoolTimeoutError` if one has still not ended after `timeout` seconds.
        """
        results = self._committed.write(collection, kind, mutations, atomic=atomic)
        if results is not None:
            return results
        async with self.begin(TransactionOptions()) as transaction:
            return await transaction.write(collection, kind, mutations, atomic=atomic)

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records once no open transaction has written them; see `write`."""
        async with self.begin(TransactionOptions()) as transaction:
            return await transaction.remove(collection, where)

    @contextlib.asynccontextmanager
    async def begin(self, options: TransactionOptions) -> AsyncIterator[MemoryTransaction]:
        """Open a transaction; its changes become visible when it ends without an exception."""
        transaction = MemoryTransaction(self._committed, options)
        try:
            yield transaction
            transaction.commit()
        finally:
            transaction.end()


def _copy_records(changes: Sequence[StoredChange]) -> list[StoredChange]:
    return [
        change if change.record is None else replace(change, record=copy_record(change.record))
        for change in changes
    ]
