"""Batches of the layout `log`, judged against a view: what their entry would do and each caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import repeat

from isthmus._core.apply import not_written
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.mutation_batch import MutationBatch, encode_together
from isthmus._record import Record
from isthmus.backends.s3.compare_and_set import judge_version, rewritten
from isthmus.backends.s3.envelope import RecordRow, format_lines, make_row, new_token, record_of, timestamp
from isthmus.backends.s3.layout import MAX_RECORD_BYTES
from isthmus.backends.s3.log.entry import Effect, add_header, entry_body
from isthmus.backends.s3.log.state import LogState
from isthmus.errors import AlreadyExistsError, InvalidRecordError, IsthmusError, RecordError


class Batch:
    """One caller's write, waiting to be part of an entry; None as kind clears."""

    def __init__(self, kind: WriteKind | None, mutations: Sequence[Mutation], *, atomic: bool) -> None:
        self.kind = kind
        self.mutations = mutations
        self.atomic = atomic
        self.done: asyncio.Future[list[ItemResult]] = asyncio.get_running_loop().create_future()
        self.together: list[str] | None = None
        """The data of plain records that are all valid: nothing else of them needs a look."""
        self._texts: list[tuple[bytes, bytes] | InvalidRecordError] = []
        if kind is not None and kind is not WriteKind.DELETE:
            plain = mutations.plain if isinstance(mutations, MutationBatch) else None
            self.together = encode_together(plain, MAX_RECORD_BYTES) if plain else None
            if self.together is None:
                self._texts = list(map(_encoded, mutations))
        self.size = sum(map(len, self.together or ()))
        self.size += sum(len(text[0]) + len(text[1]) for text in self._texts if isinstance(text, tuple))

    def texts(self, at: int) -> tuple[bytes, bytes]:
        """Return a change's data and metadata, or raise why it has none."""
        if self.together is not None:
            return self.together[at].encode(), b"{}"
        texts = self._texts[at]
        if isinstance(texts, InvalidRecordError):
            raise texts
        return texts

    def needs_rows(self) -> bool:
        """Return whether judging it needs more than ids."""
        if self.kind is WriteKind.DELETE:
            return any(c.if_version for c in self.mutations)
        return self.kind in {WriteKind.UPDATE, WriteKind.REPLACE, WriteKind.UPSERT}


class EntryPlan:
    """What an entry would do: the effects in order, and each batch's results."""

    def __init__(self) -> None:
        self.cleared = False
        self.effects: list[Effect] = []
        self.ahead: dict[str, RecordRow | None] = {}
        self.results: list[list[ItemResult]] = []
        self.token = new_token()
        """The entry's token; its records' versions are this and a number."""

    def version(self) -> str:
        """Return a version that no other write has."""
        return f"{self.token}{len(self.effects):x}"

    @property
    def idle(self) -> bool:
        """Whether there is nothing to write."""
        return not self.effects and not self.cleared

    def body(self, seq: int) -> bytes:
        """Return the entry's body."""
        return entry_body(seq, self.token, self.effects, cleared=self.cleared)

    async def finish(self) -> None:
        """Make what only the view needs, while the entry is on its way."""


class CreationPlan(EntryPlan):
    """The plan of one batch of plain records, all new: a third of the work of judging each."""

    def __init__(self, ids: list[str], texts: list[str]) -> None:
        super().__init__()
        self.results = [list(ids)]
        self._ids, self._texts, self._stamp = ids, texts, timestamp()
        self._versions = [f"{self.token}{prefix:x}" for prefix in range(len(ids))]

    @property
    def idle(self) -> bool:
        """Return False: such a batch is not empty."""
        return False

    def body(self, seq: int) -> bytes:
        """Return the entry's body."""
        lines = format_lines(self._ids, self._versions, self._stamp, self._texts)
        return add_header(seq, self.token, len(self._ids), lines, cleared=False)

    async def finish(self) -> None:
        """Make the rows."""
        stamps, data = repeat(self._stamp), map(str.encode, self._texts)
        rows = map(
            make_row, zip(self._ids, self._versions, stamps, stamps, repeat(b"{}"), data, strict=False)
        )
        self.effects = list(zip(self._ids, rows, strict=True))


def plan_entry(group: Sequence[Batch], state: LogState, rows: dict[str, RecordRow]) -> EntryPlan:
    """Return what batches do one after another to the records of a view."""
    creation = _creation(group[0], state) if len(group) == 1 else None
    if creation is not None:
        return creation
    plan = EntryPlan()
    stamp = timestamp()
    for batch in group:
        if batch.kind is None:
            plan.results.append([str(_clear(plan, state))])
            continue
        # A single change that fails has no effects to undo.
        undo = (len(plan.effects), dict(plan.ahead) if batch.atomic and len(batch.mutations) > 1 else None)
        results = [_apply(batch, at, plan, state, rows, stamp) for at in range(len(batch.mutations))]
        if batch.atomic and any(isinstance(result, IsthmusError) for result in results):
            results = [
                result if isinstance(result, IsthmusError) else not_written(mutation)
                for result, mutation in zip(results, batch.mutations, strict=True)
            ]
            del plan.effects[undo[0] :]
            plan.ahead = plan.ahead if undo[1] is None else undo[1]
        plan.results.append(results)
    return plan


def _creation(batch: Batch, state: LogState) -> CreationPlan | None:
    if batch.kind is not WriteKind.CREATE or batch.together is None:
        return None
    ids = MutationBatch.of(batch.mutations).ids
    new = len(set(ids)) == len(ids) and state.locations.keys().isdisjoint(ids)
    return CreationPlan(ids, batch.together) if new else None


def _clear(plan: EntryPlan, state: LogState) -> int:
    there = sum(1 for id in state.locations if not plan.cleared and id not in plan.ahead)
    there += sum(1 for row in plan.ahead.values() if row is not None)
    if there:
        plan.cleared = True
        plan.effects.clear()
        plan.ahead.clear()
    return there


def _apply(
    batch: Batch, at: int, plan: EntryPlan, state: LogState, rows: dict[str, RecordRow], stamp: str
) -> ItemResult:
    mutation = batch.mutations[at]
    id = mutation.id
    exists = plan.ahead[id] is not None if id in plan.ahead else not plan.cleared and id in state.locations
    row = plan.ahead[id] if id in plan.ahead else rows.get(id) if exists else None
    try:
        match batch.kind:
            case WriteKind.DELETE:
                judge_version(mutation, _versioned(row) if mutation.if_version else None)
                if exists:
                    _note(plan, id, None)
                return exists
            case WriteKind.CREATE:
                data, metadata = batch.texts(at)
                if exists:
                    raise AlreadyExistsError(f"a record with the id {id!r} is there already")
                _note(plan, id, RecordRow(id, plan.version(), stamp, stamp, metadata, data))
                return id
            case WriteKind.REPLACE | WriteKind.UPDATE | WriteKind.UPSERT:
                data, metadata = batch.texts(at)
                current = None if row is None else record_of(row)
                made = rewritten(batch.kind, mutation, current, data, metadata, stamp)
                if len(made.data) + len(made.metadata) > MAX_RECORD_BYTES:
                    raise _too_large(mutation, len(made.data) + len(made.metadata))
                _note(plan, id, made)
                return made.version
            case _:
                raise AssertionError(batch.kind)
    except RecordError as error:
        error.record_id = id
        return error


def _note(plan: EntryPlan, id: str, row: RecordRow | None) -> None:
    plan.ahead[id] = row
    plan.effects.append((id, row))


def _versioned(row: RecordRow | None) -> Record | None:
    return None if row is None else record_of(row)


def _encoded(mutation: Mutation) -> tuple[bytes, bytes] | InvalidRecordError:
    try:
        data, metadata = mutation.encoded(), mutation.encoded_metadata()
    except InvalidRecordError as error:
        return error
    size = len(data) + len(metadata)
    return _too_large(mutation, size) if size > MAX_RECORD_BYTES else (data, metadata)


def _too_large(mutation: Mutation, size: int) -> InvalidRecordError:
    return InvalidRecordError(
        f"data: the encoded record has {size} bytes, at most {MAX_RECORD_BYTES} are stored",
        path="data",
        record_id=mutation.id,
    )
