"""The committed records of a store in memory, their snapshots, and the commits that snapshots do not see."""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import Collection, Mapping, Sequence

from isthmus._core.changes import KEEP_SECONDS, ChangePage, Position, StoredChange, missing_changes
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.unique import Unique
from isthmus._core.unique_index import UniqueChanges, UniqueIndex
from isthmus._record import Record
from isthmus.backends.memory.executor import Table, Tables, apply_batch
from isthmus.backends.memory.journal import ChangeJournal
from isthmus.backends.memory.record_locks import Key, RecordLocks, values_of
from isthmus.errors import InvalidRecordError

_NONE = UniqueIndex()


class Committed:
    """Tables that are copied before a change while a snapshot has them; used by any thread."""

    def __init__(self, timeout: float, *, changes: bool = False, keep: float = KEEP_SECONDS) -> None:
        self.tables: Tables = {}
        self._journals: dict[str, ChangeJournal] = {}
        self._journal_all, self._keep = changes, keep
        self._last_order = 0  # of the journals that have ended
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
            unique = UniqueChanges(self._unique.get(collection, _NONE))
            read = self.tables.get(collection, {}).get
            results, changes = apply_batch(read, unique, kind, mutations, atomic=atomic)
            if locked and unique.touched:
                values = values_of(collection)
                if any((values, claim) in locked for claim in unique.touched):
                    return None
            if changes:
                self.apply({collection: changes}, {collection: unique} if unique.declared else {})
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
            self._end_journal(collection)

    # Changes

    def changes_position(self, collection: str) -> Position:
        """Return the position after the last commit."""
        with self._guard:
            return self._existing_journal(collection).now

    def read_changes(self, collection: str, position: Position, limit: int) -> ChangePage:
        """Return changes after a position, with the records as they are now."""
        with self._guard:
            journal = self._existing_journal(collection)
            return journal.read(position, limit, self.table(collection))

    def read_records(
        self, collection: str, position: Position, limit: int
    ) -> tuple[list[StoredChange], bool]:
        """Return records after an id in the order of ids, and whether there are more."""
        with self._guard:
            journal, table = self._existing_journal(collection), self.table(collection)
            journal.check(position, table)
            ids = heapq.nsmallest(limit + 1, (id for id in table if id > (position.after or "")))
            found = [StoredChange(id, table[id], journal.order(id)) for id in ids[:limit]]
            return found, len(ids) > limit

    async def wait_for_changes(self, collection: str, position: Position, seconds: float) -> None:
        """Return after the next commit to a collection, at the latest after `seconds`."""
        with self._guard:
            journal = self._existing_journal(collection)
            waiter = journal.waiter(position)
        try:
            await asyncio.wait([waiter], timeout=seconds)
        finally:
            with self._guard:
                journal.forget(waiter)
            waiter.cancel()

    def make_journal(self, collection: str) -> None:
        """Keep the changes of a collection from now on."""
        with self._guard:
            if self._journal(collection) is None:
                self._start_journal(collection)

    def end_journal(self, collection: str) -> None:
        """Keep no changes of a collection any more."""
        with self._guard:
            self._end_journal(collection)

    def _journal(self, collection: str) -> ChangeJournal | None:
        journal = self._journals.get(collection)
        return self._start_journal(collection) if journal is None and self._journal_all else journal

    def _existing_journal(self, collection: str) -> ChangeJournal:
        journal = self._journal(collection)
        if journal is None:
            raise missing_changes(collection)
        return journal

    def _start_journal(self, collection: str) -> ChangeJournal:
        journal = ChangeJournal(collection, self._keep, self.table(collection), last=self._last_order)
        self._journals[collection] = journal
        return journal

    def _end_journal(self, collection: str) -> None:
        journal = self._journals.pop(collection, None)
        if journal is not None:
            self._last_order = max(self._last_order, journal.last)
            journal.wake()

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
            if values.declared:
                values.apply_to(self._unique[collection])
        for collection, records in changes.items():
            journal = self._journal(collection) if self._journals or self._journal_all else None
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
            if journal is not None:
                journal.append(records, table)
