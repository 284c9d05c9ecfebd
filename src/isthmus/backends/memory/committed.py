"""The committed records of a store in memory, their snapshots, and the commits that snapshots do not see."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._record import Record
from isthmus.backends.memory.executor import Table, Tables, apply_batch
from isthmus.backends.memory.record_locks import Key, RecordLocks


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
        with self.locks.free_records(collection, mutations) as free:
            if not free:
                return None
            results, changes = apply_batch(self.table(collection).get, kind, mutations, atomic=atomic)
            if changes:
                self.apply({collection: changes})
            return results

    def apply(self, changes: Mapping[str, Mapping[str, Record | None]]) -> None:
        """Store records and remove those that are None."""
        with self._guard:
            self._apply(changes)

    def apply_serializable(
        self,
        transaction: object,
        changes: Mapping[str, Mapping[str, Record | None]],
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
                )
            self._apply(changes)
        return True

    def drop(self, collection: str) -> None:
        """Remove a table; snapshots keep it."""
        with self._guard:
            self.tables.pop(collection, None)

    def _apply(self, changes: Mapping[str, Mapping[str, Record | None]]) -> None:
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
