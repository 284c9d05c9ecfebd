"""Transactions in memory: the interleavings that PostgreSQL admits at each level, and no others."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from functools import partial

from isthmus._core.evaluation import select_matching
from isthmus._core.executor import ItemResult, Mutation, Page, PageRequest, TransactionOptions, WriteKind
from isthmus._core.unique_index import Claim, UniqueChanges
from isthmus._query.ast import Predicate
from isthmus._record import Record
from isthmus.backends.memory.committed import Committed
from isthmus.backends.memory.executor import MemoryExecutor, Table, Tables, apply_batch, copy_record
from isthmus.backends.memory.record_locks import Holder, Key, values_of
from isthmus.errors import AlreadyExistsError, SerializationError, TransactionError


class MemoryTransaction(MemoryExecutor):
    """Its own changes over the committed records, or over the snapshot of its first statement.

    A record that it writes or locks is locked until its end, so that another writer waits. Above read
    committed, one that somebody changed since the snapshot cannot be written.
    """

    def __init__(self, committed: Committed, options: TransactionOptions) -> None:
        super().__init__()
        self._committed = committed
        self._read_only = options.read_only
        self._has_snapshot = options.isolation in ("repeatable read", "serializable")
        self._serializable = options.isolation == "serializable"
        self._snapshot: Tables | None = None
        self._own: dict[str, dict[str, Record | None]] = {}
        self._unique: dict[str, UniqueChanges] = {}
        self._holder = Holder()
        self._records: set[Key] = set()
        self._scanned: set[str] = set()
        self._lost = False

    async def open(self, collection: str) -> None:
        """Do nothing: a handle makes its collections ready before it begins a transaction on them."""

    # Reading

    def _base(self, collection: str) -> Table:
        if not self._has_snapshot:
            return self._committed.table(collection)
        if self._snapshot is None:
            self._snapshot = self._committed.snapshot(self)
        return self._snapshot.get(collection, {})

    def _table(self, collection: str) -> Mapping[str, Record]:
        self._check()
        self._scanned.add(collection)
        base, own = self._base(collection), self._own.get(collection)
        if not own:
            return base
        return {id: record for id, record in {**base, **own}.items() if record is not None}

    def _record(self, collection: str, id: str) -> Record | None:
        self._check()
        self._records.add((collection, id))
        return self._current(collection, id)

    def _current(self, collection: str, id: str) -> Record | None:
        own = self._own.get(collection, {})
        return own[id] if id in own else self._base(collection).get(id)

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order; `for_update` waits for those that others write."""
        if for_update:
            await self._lock(collection, [id for id in ids if self._record(collection, id) is not None])
        return await super().read(collection, ids)

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page; `for_update` waits for records that others write, and looks at them again."""
        page = await super().fetch(collection, request)
        if not request.for_update:
            return page
        found = [self._current(collection, record.id or "") for record in page.records]
        locked = await self._lock_matching(collection, [record for record in found if record], request.where)
        return Page([copy_record(record) for record in locked], page.after)

    # Writing

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations one after another, all or none if `atomic`; return one result for each."""
        self._check_writable()
        await self._lock(collection, [mutation.id for mutation in mutations])
        # Nobody can change the declarations from now on: that waits for all who have locks.
        before = self._unique_changes(collection)
        locked: set[Claim] = set()
        while True:
            unique = UniqueChanges(before)
            read = partial(self._current, collection)
            results, changes = apply_batch(read, unique, kind, mutations, atomic=atomic)
            if unique.touched <= locked:
                break
            # Another may have claimed or given up one of the values meanwhile: look again.
            await self._lock_values(collection, unique.touched)
            locked |= unique.touched
        self._check_clashes(collection, results)
        if changes:
            self._own.setdefault(collection, {}).update(changes)
            unique.apply_to(before)
        return results

    def _check_clashes(self, collection: str, results: Sequence[ItemResult]) -> None:
        """Raise `SerializationError` if a record has a value that it did not have in the snapshot.

        The refusal cannot be of the state that a serializable transaction sees.
        """
        if not self._serializable:
            return
        committed, snapshot = self._committed.table(collection), self._base(collection)
        for result in results:
            if isinstance(result, AlreadyExistsError) and result.field is not None:
                id = result.record_id or ""
                if id not in self._own.get(collection, {}) and committed.get(id) is not snapshot.get(id):
                    self._lost = True
                    raise SerializationError(f"record {id!r} has taken the value meanwhile; run it again")

    def _unique_changes(self, collection: str) -> UniqueChanges:
        changes = self._unique.get(collection)
        if changes is None:
            changes = self._unique[collection] = UniqueChanges(self._committed.unique(collection))
        return changes

    async def _lock_values(self, collection: str, claims: Collection[Claim]) -> None:
        """Lock values of unique fields: a claim waits until it is known who has the value."""
        keys = [(values_of(collection), claim) for claim in sorted(claims)]
        self._records.update(keys)
        try:
            await self._committed.locks.acquire(self._holder, keys)
        except SerializationError:
            self._lost = True
            raise

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records and return how many there were."""
        self._check_writable()
        matching = await self._lock_matching(collection, await self._select(collection, where), where)
        if not matching:
            return 0
        unique = UniqueChanges(before := self._unique_changes(collection))
        for record in matching:
            unique.remove(record.id or "")
        await self._lock_values(collection, unique.touched)
        unique.apply_to(before)
        self._own.setdefault(collection, {}).update({record.id or "": None for record in matching})
        return len(matching)

    async def lock_table(self, collection: str) -> None:
        """Wait until no other transaction holds a record of the table, new ones included."""
        await self._lock(collection, list(self._table(collection)))
        while held := self._committed.locks.others_locks(self._holder, collection):
            await self._lock(collection, held)

    async def _lock_matching(self, collection: str, records: list[Record], where: Predicate) -> list[Record]:
        """Lock records and return those that still match, as they are then."""
        await self._lock(collection, [record.id or "" for record in records])
        current = [(record, self._current(collection, record.id or "")) for record in records]
        changed = [new for old, new in current if new is not None and new is not old]
        still = {id(record) for record in await select_matching(changed, where)} if changed else set()
        return [new for old, new in current if new is not None and (new is old or id(new) in still)]

    async def _lock(self, collection: str, ids: Sequence[str]) -> None:
        """Lock records; raises `SerializationError` for a deadlock, and for a change since the snapshot."""
        snapshot = self._base(collection)
        try:
            # In one order, so that batches do not wait for each other.
            keys = [(collection, id) for id in sorted(set(ids))]
            await self._committed.locks.acquire(self._holder, keys)
            if self._has_snapshot:
                committed = self._committed.table(collection)
                changed = next((id for id in ids if committed.get(id) is not snapshot.get(id)), None)
                if changed is not None:
                    raise SerializationError(
                        f"record {changed!r} was changed since this transaction began; run it again"
                    )
        except SerializationError:
            self._lost = True
            raise

    def _check(self) -> None:
        if self._lost:
            raise TransactionError("this transaction has failed by a conflict; run it again")

    def _check_writable(self) -> None:
        self._check()
        if self._read_only:
            raise TransactionError("this transaction is read-only")

    # Its end

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a savepoint: leaving it by an exception undoes the writes since, but keeps their locks."""
        before = {collection: dict(changes) for collection, changes in self._own.items()}
        unique = {collection: changes.copy() for collection, changes in self._unique.items()}
        lost = self._lost
        try:
            yield
        except BaseException:
            self._own, self._unique, self._lost = before, unique, lost
            raise

    def commit(self) -> None:
        """Make the changes visible; raises `SerializationError` if the transaction cannot be serialized."""
        if self._lost:
            raise SerializationError("this transaction has failed by a conflict; run it again")
        if not self._serializable:
            self._committed.apply(self._own, self._unique)
        elif not self._committed.apply_serializable(
            self, self._own, self._unique, self._records, self._scanned
        ):
            raise SerializationError("what this transaction read was changed meanwhile; run it again")

    def end(self) -> None:
        """Let those go on who wait for its records."""
        self._committed.forget(self)
        self._committed.locks.release(self._holder)
