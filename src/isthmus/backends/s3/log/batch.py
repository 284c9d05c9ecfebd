"""Batches of writes, and the log entry that a group of them becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat

from isthmus._core.apply import apply_in_order, refuse_batch
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.mutation_batch import MutationBatch, encode_together
from isthmus._core.unique import Unique
from isthmus._core.unique_index import UniqueChanges, UniqueIndex
from isthmus._record import Record
from isthmus._values import decode
from isthmus.backends.s3.compare_and_set import RowChanges, check_size, encode_once
from isthmus.backends.s3.envelope import (
    RecordRow,
    format_lines,
    make_row,
    new_token,
    record_of,
    timestamp,
    version_at,
)
from isthmus.backends.s3.layout import MAX_RECORD_BYTES
from isthmus.backends.s3.log.entry import KeptChanges, add_header, entry_body
from isthmus.backends.s3.log.state import LogState
from isthmus.errors import InvalidRecordError


class Batch:
    """One caller's write, waiting to become part of an entry. The kind None deletes all records."""

    def __init__(self, kind: WriteKind | None, mutations: Sequence[Mutation], *, atomic: bool) -> None:
        self.kind = kind
        self.mutations = mutations
        self.atomic = atomic
        self.done: asyncio.Future[list[ItemResult]] = asyncio.get_running_loop().create_future()
        self.texts: list[str] | None = None
        """The JSON of the data, if no record has metadata and all are valid."""
        self.size = 0
        """Bytes of data and metadata."""
        if kind is not None and kind is not WriteKind.DELETE:
            plain = mutations.plain if isinstance(mutations, MutationBatch) else None
            self.texts = encode_together(plain, MAX_RECORD_BYTES) if plain else None
            self.size = sum(map(_encode, mutations) if self.texts is None else map(len, self.texts))

    def encode_mutations(self) -> Sequence[Mutation]:
        """Return the mutations, encoded once for all attempts."""
        if self.texts is not None:
            for mutation, text in zip(self.mutations, self.texts, strict=True):
                mutation.raw = text.encode()
        return self.mutations

    def ids_to_load(self) -> Iterable[str]:
        """Return the ids whose rows are needed; of the others it only matters whether they exist."""
        if self.kind in {WriteKind.UPDATE, WriteKind.REPLACE, WriteKind.UPSERT} or (
            self.kind is WriteKind.DELETE
            and any(mutation.if_version is not None for mutation in self.mutations)
        ):
            return (mutation.id for mutation in self.mutations)
        return ()


def _encode(mutation: Mutation) -> int:
    try:
        return encode_once(mutation)
    except InvalidRecordError:
        return 0  # its turn to be refused comes when the batch is applied


class EntryPlan(RowChanges):
    """An entry that is not written yet, and each batch's results once it is.

    It becomes the entry after `state.seq`: where changes are kept, that is the order of its records.
    """

    def __init__(
        self,
        state: LogState,
        records: Mapping[str, Record],
        unique: frozenset[Unique] | None = None,
        changes: KeptChanges | None = None,
    ) -> None:
        super().__init__(records, timestamp())
        self.cleared = False
        self.unique = unique
        """The fields that become unique with this entry; None if it changes nothing about that."""
        self._values = UniqueChanges(state.unique.index if unique is None else UniqueIndex(unique))
        self.results: list[list[ItemResult]] = []
        self.token = new_token()
        """The entry's token; its records' versions are this and a number."""
        self.changes = changes
        """Whether changes are kept from this entry on; None if it changes nothing about that."""
        kept = state.changes if changes is None else changes
        self._keeps_changes = kept is not None and bool(kept.making)
        self._version = version_at(state.seq + 1, self.token) if self._keeps_changes else self.token
        self._state = state

    def version(self, id: str) -> str | None:
        """Return the version of a record, None if there is none.

        It is empty where the row was not loaded: there only the record's existence matters.
        """
        if id in self._records:
            return super().version(id)
        return "" if not self.cleared and id in self._state.locations else None

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        """Write a whole record and return its new version.

        Raises `InvalidRecordError` for one that is too large, and what `UniqueChanges.put` raises.
        """
        if self._values.declared:
            check_size(id, data, metadata)
            self._values.put(id, decode(data))
        return super().put(id, data, metadata)

    def delete(self, id: str) -> None:
        """Delete a record."""
        if self._values.declared:
            self._values.remove(id)
        super().delete(id)

    def new_version(self) -> str:
        """Return a version that no other write has."""
        return f"{self._version}{len(self.effects):x}"

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write: fields become unique with the first record."""
        return not self.effects and not self.cleared

    def apply(self, batch: Batch) -> None:
        """Apply a batch after those before it and note its results."""
        if batch.kind is None:
            self.results.append([str(self._clear())])
            return
        # A single mutation that is refused has no effects to undo.
        atomic = batch.atomic and len(batch.mutations) > 1
        count, before = len(self.effects), dict(self._records) if atomic else self._records
        values = self._values
        if atomic:
            self._values = UniqueChanges(values)
        mutations = batch.encode_mutations()
        results = apply_in_order(self, batch.kind, mutations)
        refused = refuse_batch(mutations, results) if batch.atomic else None
        if refused is not None:
            del self.effects[count:]
            self._records = before
        elif atomic:
            self._values.apply_to(values)
        self._values = values
        self.results.append(results if refused is None else refused)

    def _clear(self) -> int:
        """Delete all records and return how many there were."""
        ids = set() if self.cleared else set(self._state.locations)
        for id, record in self._records.items():
            (ids.discard if record is None else ids.add)(id)
        if ids:
            self.cleared = True
            self._values.clear()
            written = {id for id, _ in self.effects}
            self.effects.clear()
            self._records.clear()
            if self._keeps_changes:  # one change per id
                self.effects += [(id, None) for id in sorted(ids | written)]
        return len(ids)

    def body(self, seq: int) -> bytes:
        """Return the entry's body."""
        return entry_body(
            seq, self.token, self.effects, cleared=self.cleared, unique=self.unique, changes=self.changes
        )

    async def finish(self) -> None:
        """Compute the effects, which only the state needs, while the entry is being sent."""


class CreationPlan(EntryPlan):
    """The entry of one batch of plain records that are all new: a third of the work of applying each."""

    def __init__(self, state: LogState, ids: list[str], texts: list[str]) -> None:
        super().__init__(state, {})
        self.results = [list(ids)]
        self._ids, self._texts = ids, texts
        self._versions = [f"{self._version}{number:x}" for number in range(len(ids))]

    @property
    def empty(self) -> bool:
        """Return False: such a batch has records."""
        return False

    def body(self, seq: int) -> bytes:
        """Return the entry's body."""
        lines = format_lines(self._ids, self._versions, self._now, self._texts)
        return add_header(seq, self.token, len(self._ids), lines, cleared=False)

    async def finish(self) -> None:
        """Build the rows."""
        stamps, data = repeat(self._now), map(str.encode, self._texts)
        rows = map(
            make_row, zip(self._ids, self._versions, stamps, stamps, repeat(b"{}"), data, strict=False)
        )
        self.effects = list(zip(self._ids, rows, strict=True))


def plan_entry(
    group: Sequence[Batch],
    state: LogState,
    rows: Mapping[str, RecordRow],
    wanted: frozenset[Unique],
    keep: float | None = None,
) -> EntryPlan:
    """Return the entry that applies batches one after another to the records of a state.

    `rows` holds the rows of `Batch.ids_to_load`, as far as there are any. If there are no records
    yet, the fields `wanted` become unique with it, and changes are kept for `keep` seconds from it on.
    """
    declared = frozenset(state.unique.index.declared)
    unique = None if state.locations or wanted <= declared else declared | wanted
    changes = None
    if keep is not None and state.changes is None and not state.locations:
        changes = KeptChanges(new_token(), keep)
    [first, *others] = group
    if (
        not (declared or unique or changes or others)
        and first.kind is WriteKind.CREATE
        and first.texts is not None
    ):
        ids = MutationBatch.of(first.mutations).ids
        if len(set(ids)) == len(ids) and state.locations.keys().isdisjoint(ids):
            return CreationPlan(state, ids, first.texts)
    plan = EntryPlan(state, {id: record_of(row) for id, row in rows.items()}, unique, changes)
    for batch in group:
        plan.apply(batch)
    return plan
