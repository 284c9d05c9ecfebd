"""The committed records of a store in memory, their snapshots, and the commits that snapshots do not see."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.unique import Unique
from isthmus._core.unique_index import UniqueChanges, UniqueIndex
from isthmus._record import Record
from isthmus.backends.memory.executor import Table, Tables, apply_batch
from isthmus.backends.memory.record_locks import Key, RecordLocks, values_of
from isthmus.errors import InvalidRecordError

_NONE = UniqueIndex()


class Committed:
    """Tables that are copied before a change while a snapshot has them; used by any thread."""

    def __init__(self, timeout: float) -> None:
        self.tables: Tables = {}
        self.locks = RecordLocks(timeout)
        self._guard = threading.Lock()
        self._shared: set[str] = set()
        self._number = 0
        # The records that serializable transactions changed, by the number of their commit, as long as
        # a serializable transaction is open that began before.
        self._changes: dict[int, frozenset[Key]] = {}
        self._open: dict[object, int] = {}
        self._unique: dict[str, UniqueIndex] = {}

    def table(self, collection: str) -> Table:
        """Return the records of a collection as they are now."""
        return self.tables.get(collection, {})

    def snapshot(self, transaction: object) -> Tables:
        """Return all tables as they are now; `forget` ends it."""
        with self._guard:
            self._shared.update(self.tables)
            self._open[transaction] = self._number
            return dict(self.tables)

    def forget(self, transaction: object) -> None:
        """End a transaction's snapshot, if it has one."""
        with self._guard:
            self._open.pop(transaction, None)
            oldest = min(self._open.values(), default=self._number)
            self._changes = {number: keys for number, keys in self._changes.items() if number > oldest}

    def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult] | None:
        """Write as a transaction of its own, unless an open one has locked a record: then return None."""
        with self.locks.pause() as locked:
            if locked and any((collection, mutation.id) in locked for mutation in mutations):
                return None
            unique = UniqueChanges(self.unique(collection))
            read = self.table(collection).get
            results, changes = apply_batch(read, unique, kind, mutations, atomic=atomic)
            values = values_of(collection)
            if locked and any((values, claim) in locked for claim in unique.touched):
                return None
            if changes:
                self.apply({collection: changes}, {collection: unique})
            return results

    def apply(
        self, changes: Mapping[str, Mapping[str, Record | None]], unique: Mapping[str, UniqueChanges]
    ) -> None:
        """Store records, remove those that are None, and note the changes of unique values."""
        with self._guard:
            self._apply(changes, unique)

    def apply_serializable(
        self,
        transaction: object,
        changes: Mapping[str, Mapping[str, Record | None]],
        unique: Mapping[str, UniqueChanges],
        records: Collection[Key],
        scanned: Collection[str],
    ) -> bool:
        """Store changes unless a record or collection that was read is no longer as it was read.

        The transaction then is as if it had run at its commit. One that changes nothing is as if it
        had run at its snapshot, and is not refused.
        """
        with self._guard:
            since = self._open.get(transaction, self._number)
            if changes:
                for number, keys in self._changes.items():
                    if number > since and any(key in records or key[0] in scanned for key in keys):
                        return False
                self._number += 1
                self._changes[self._number] = frozenset(
                    (collection, id) for collection, table in changes.items() for id in table
                ) | {
                    (values_of(collection), claim)
                    for collection, values in unique.items()
                    for claim in values.touched
                }
            self._apply(changes, unique)
        return True

    def drop(self, collection: str) -> None:
        """Remove a table and its declarations of unique fields; snapshots keep it."""
        with self._guard:
            self.tables.pop(collection, None)
            self._unique.pop(collection, None)

    def unique(self, collection: str) -> UniqueIndex:
        """Return the unique values of a collection."""
        return self._unique.get(collection, _NONE)

    def declare(self, collection: str, declared: Collection[Unique]) -> None:
        """Set the unique fields of a collection, whose records have no equal values there.

        Raises `InvalidRecordError`, and changes nothing, for a record with a value that no unique
        field can have. Nobody may have changes of the collection that are not committed.
        """
        with self.locks.pause(), self._guard:
            index = UniqueIndex(declared)
            values = UniqueChanges(index)
            for id, record in self.table(collection).items():
                try:
                    values.put(id, record.data)
                except InvalidRecordError as error:
                    error.record_id = id
                    raise
            values.apply_to(index)
            self._unique[collection] = index

    def _apply(
        self, changes: Mapping[str, Mapping[str, Record | None]], unique: Mapping[str, UniqueChanges]
    ) -> None:
        for collection, values in unique.items():
            values.apply_to(self._unique.get(collection, UniqueIndex()))
        for collection, records in changes.items():
            table = self.tables.get(collection, {})
            if collection in self._shared:
                table = dict(table)
                self._shared.discard(collection)
            for id, record in records.items():
                if record is None:
                    table.pop(id, None)
                else:
                    table[id] = record
            self.tables[collection] = table
