"""Modifications where the store has none: read, change, and write under the version that was read.

A write that lost a race to another writer was not applied, so the record is read again; after some
attempts with pauses. The deadline bounds this, not a number of attempts.
"""

from __future__ import annotations

import functools
from _random import Random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from isthmus._core.apply import has_repeated_ids, refuse_batch
from isthmus._core.capabilities import Capabilities
from isthmus._core.clock import REPEAT_SECONDS, Clock
from isthmus._core.executor import Executor, ItemResult, Mutation, WriteKind
from isthmus._core.modify import Modification, SupportsModifyBatch
from isthmus._core.modify_rows import modify_in_order
from isthmus._core.offload import LONG, run_in_thread
from isthmus._core.op import Modify, ModifyWhere, NativeModifyBatch, Read, Write
from isthmus._core.stack import Next
from isthmus._ids import new_id, new_version
from isthmus._query.ast import FALSE, TRUE, Leaf
from isthmus._query.patterns import effort
from isthmus._query.split import Pushdown, split
from isthmus._record import Record, make_record
from isthmus._values import decode
from isthmus.errors import (
    AlreadyExistsError,
    Applied,
    BatchError,
    ConflictError,
    InvalidRecordError,
    IsthmusError,
    NotFoundError,
    NotWrittenError,
    StoreError,
)
from isthmus.layers._call_state import CALL, NO_CALL

_State: TypeAlias = "tuple[str, bytes, bytes]"
"""A record's id, and its data and metadata as JSON after a modification."""
_REFUSALS = (AlreadyExistsError, InvalidRecordError)
CHUNK = 1_000
"""Records of one request of `update_where` where a batch is not atomic."""


def native_modification(item: Modification, pushdown: Callable[[Leaf], Pushdown]) -> Modification | None:
    """Return a modification with its condition as the store evaluates it; None if it cannot."""
    if item.where == TRUE:
        return item
    parts = split(item.where, pushdown)
    if parts.residual != TRUE or parts.pushed == FALSE:
        return None
    return Modification(item.id, item.changes, parts.pushed, item.if_version)


async def modify_items(op: Modify, executor: Executor, call_next: Next, clock: Clock) -> list[ItemResult]:
    """Apply modifications natively where the executor takes several, else by compare-and-set."""
    if isinstance(executor, SupportsModifyBatch):
        pushdown = executor.support(op.collection).pushdown
        items = [native_modification(item, pushdown) for item in op.modifications]
        known = [item for item in items if item is not None]
        if len(known) == len(items):
            return await call_next(NativeModifyBatch(op.collection, known, op.atomic))
    return await CompareAndSet(call_next, clock, executor.capabilities).modify(op)


class _ReadRows:
    """The records that were read, as `modify_in_order` changes them; `states` holds what to write."""

    def __init__(self, records: dict[str, Record]) -> None:
        self._records = dict(records)
        self.states: list[_State] = []

    def record(self, id: str) -> Record | None:
        return self._records.get(id)

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        old, version = self._records[id], str(new_version())
        self.states.append((id, data, metadata))
        record = make_record(id, decode(data), decode(metadata), version, old._created, old._updated)
        self._records[id] = record
        return version


class CompareAndSet:
    """Applies modifications by reading records and writing each under the version that was read.

    Records are read with a lock where `can.for_update`, so that no replica serves the read and a
    transaction sees what it is going to change.
    """

    def __init__(self, call_next: Next, clock: Clock, can: Capabilities) -> None:
        self._call_next = call_next
        self._clock = clock
        self._can = can

    async def modify(self, op: Modify) -> list[ItemResult]:
        """Apply modifications and return one result for each, in order.

        With `op.atomic` they are one atomic write. Otherwise those of one record become one write if
        they are merged, or where the store cannot refuse one of several states of a record (it has
        neither atomic batches nor unique fields). Raises a `StoreError` that no item survived.
        """
        ordered = self._can.atomic_batch and not op.merged and has_repeated_ids(op.modifications)
        if ordered and not op.atomic:
            return await self._modify_in_parts(op)
        results, outrun = await self._modify(op)
        for index in outrun:
            results[index] = _conflict(op.modifications[index].id)
        refused = refuse_batch(op.modifications, results) if op.atomic else None
        return results if refused is None else refused

    async def _modify_in_parts(self, op: Modify) -> list[ItemResult]:
        """Apply modifications one after another: a write for all up to one whose record comes again."""
        results: list[ItemResult] = []
        for part in _without_repeats(op.modifications):
            try:
                results += await self.modify(Modify(op.collection, part, atomic=False))
            except StoreError as error:
                if not any(isinstance(result, str) for result in results):
                    raise
                results += [error] * (len(op.modifications) - len(results))
                break
        return results

    async def _modify(self, op: Modify) -> tuple[list[ItemResult], list[int]]:
        """Return the results, and the indexes of the items that lost every race: they have no result."""
        call = CALL.get()
        until = self._clock.now() + REPEAT_SECONDS if call is NO_CALL else call.until
        results: list[ItemResult] = [False] * len(op.modifications)
        pending = list(range(len(results)))
        refused: set[str] = set()
        async for _ in _attempts(self._clock, until):
            items = [op.modifications[index] for index in pending]
            try:
                if op.atomic:
                    answers = await self._attempt_all(op)
                else:
                    answers = await self._attempt(op, items, refused)
            except StoreError as error:
                if len(pending) == len(results):
                    raise
                answers = [error] * len(items)
            lost = []
            for index, answer in zip(pending, answers, strict=True):
                if answer is None:
                    lost.append(index)
                else:
                    results[index] = answer
            pending = lost
            if not pending:
                break
        return await self._apply_apart(op, results, refused), pending

    async def _apply_apart(self, op: Modify, results: list[ItemResult], ids: set[str]) -> list[ItemResult]:
        """Apply one by one the modifications of records that the store refused with all of them.

        It may be one of them that takes another record's unique value, or makes the record too large.
        """
        times = Counter(item.id for item in op.modifications)
        for index, item in enumerate(op.modifications):
            if item.id in ids and times[item.id] > 1:
                [results[index]] = await self.modify(Modify(op.collection, (item,), atomic=False))
        return results

    async def _attempt(
        self, op: Modify, items: Sequence[Modification], refused_ids: set[str]
    ) -> list[ItemResult | None]:
        """Apply items once, those of one record as one write; the result of one that lost a race is None.

        `refused_ids` gets the records that the store refuses as they are with all modifications.
        """
        records = await self._read(op, items)
        rows = _ReadRows(records)
        outcomes = await _evaluate(rows, items, records)
        states = list({state[0]: state for state in rows.states}.values())
        written = await self._write(op, states, records)
        answers = {id: answer for (id, *_), answer in zip(states, written, strict=True)}
        refused_ids.update(id for id, answer in answers.items() if isinstance(answer, _REFUSALS))
        return [
            _merge_result(outcome, answers.get(item.id))
            for item, outcome in zip(items, outcomes, strict=True)
        ]

    async def _attempt_all(self, op: Modify) -> Sequence[ItemResult | None]:
        """Apply all items or none, in one write of each state of each record; all are None if it lost a race.

        A state that the store refuses (another record has the value of a unique field) is not there for
        the items that follow: they are evaluated once more, in a write that certainly fails.
        """
        records = await self._read(op, op.modifications)
        refused: dict[int, ItemResult] = {}
        while True:
            kept = [item for index, item in enumerate(op.modifications) if index not in refused]
            rows = _ReadRows(records)
            outcomes = iter(await _evaluate(rows, kept, records))
            results = [refused[i] if i in refused else next(outcomes) for i in range(len(op.modifications))]
            valid = [index for index, result in enumerate(results) if not isinstance(result, IsthmusError)]
            failed = len(valid) < len(results)
            if failed and not (self._can.unique and valid):
                return results
            written = await self._write(op, rows.states, records, fails=failed)
            if any(map(_is_race, written)):
                return [None] * len(results)
            answers = dict(zip(valid, written, strict=True))
            again = _refusals_before_others(op.modifications, answers)
            if not again:
                return [answers.get(index, result) for index, result in enumerate(results)]
            refused |= again

    async def _read(self, op: Modify, items: Sequence[Modification]) -> dict[str, Record]:
        ids = list(dict.fromkeys(item.id for item in items))
        found = await self._call_next(Read(op.collection, ids, self._can.for_update))
        return {id: record for id, record in zip(ids, found, strict=True) if record is not None}

    async def _write(
        self, op: Modify, states: Sequence[_State], records: dict[str, Record], *, fails: bool = False
    ) -> list[ItemResult]:
        """Replace records in order, each first under the version that was read; return each write's result.

        `fails`: the write is atomic, and something is added to it that is refused.
        """
        writes = []
        guarded: set[str] = set()
        for id, data, metadata in states:
            mutation = Mutation(id, None, None, None if id in guarded else records[id].version)
            mutation.raw, mutation.raw_metadata = data, metadata
            guarded.add(id)
            writes.append(mutation)
        if not writes:
            return []
        if fails:
            writes.append(Mutation(new_id(), {}, {}))
        written = await self._call_next(Write(op.collection, WriteKind.REPLACE, writes, op.atomic))
        return written[: len(states)]

    async def modify_matching(self, op: ModifyWhere, ids: Sequence[str], *, atomic: bool) -> int:
        """Change the records of these ids that still match, and return how many.

        With `atomic` all or none. Raises `BatchError` with the outcomes if one cannot be changed.
        """
        if atomic:
            return await self._modify_all(op, ids)
        results: list[ItemResult] = []
        for start in range(0, len(ids), CHUNK):
            part = _modify_op(op, ids[start : start + CHUNK], atomic=False)
            try:
                results += _results_of_matching(part, *await self._modify(part))
            except StoreError as error:
                if not any(isinstance(result, str) for result in results):
                    raise
                results += [error] * len(part.modifications)
                break
        return _count_changed(results)

    async def _modify_all(self, op: ModifyWhere, ids: Sequence[str]) -> int:
        """Change all records that match or none; one that no longer matches is left out."""
        while ids:
            part = _modify_op(op, ids, atomic=True)
            answers, outrun = await self._modify(part)
            if outrun:  # all of them
                return _count_changed(_results_of_matching(part, answers, outrun))
            matching = [id for id, answer in zip(ids, answers, strict=True) if not _is_race(answer)]
            if len(matching) == len(ids):
                return _count_changed(answers)
            ids = matching  # nothing was written yet
        return 0


async def _attempts(clock: Clock, until: float) -> AsyncIterator[None]:
    """Yield at once, then after growing random pauses until the time is over."""
    yield
    random, limit = Random().random, 0.002
    while True:
        pause = random() * limit
        limit = min(limit * 2, 0.25)
        if clock.now() + pause >= until:
            return
        await clock.sleep(pause)
        yield


async def _evaluate(
    rows: _ReadRows, items: Sequence[Modification], records: dict[str, Record]
) -> list[ItemResult]:
    """Apply items to the records that were read, in a thread if their conditions take long."""
    work = functools.partial(modify_in_order, rows, items)
    costs = {item.where: effort(item.where) for item in items if item.where != TRUE}
    length = max((len(record.raw[0] or repr(record.data)) for record in records.values()), default=0)
    if costs and max(costs.values()) * length * len(items) > LONG:
        return await run_in_thread(work)
    return work()


def _without_repeats(items: Sequence[Modification]) -> Iterator[list[Modification]]:
    """Yield the items in order, in parts in which no record comes twice."""
    part: dict[str, Modification] = {}
    for item in items:
        if item.id in part:
            yield list(part.values())
            part = {}
        part[item.id] = item
    if part:
        yield list(part.values())


def _refusals_before_others(
    items: Sequence[Modification], answers: Mapping[int, ItemResult]
) -> dict[int, ItemResult]:
    """Return what the store refused up to the first item whose record has further ones; {} without such.

    What comes after that one was evaluated as if it had been applied. `answers` are in order, by index.
    """
    last = {item.id: index for index, item in enumerate(items)}
    refused: dict[int, ItemResult] = {}
    for index, answer in answers.items():
        if isinstance(answer, _REFUSALS):
            refused[index] = answer
            if index < last[items[index].id]:
                return refused
    return {}


def _merge_result(outcome: ItemResult, answer: ItemResult | None) -> ItemResult | None:
    """Return an item's result, given that of its record's write; None if that lost a race."""
    if answer is None:  # nothing was written: all modifications of the record were refused
        return outcome
    if _is_lost_race(answer):
        return None
    return outcome if isinstance(outcome, IsthmusError) else answer


def _is_lost_race(answer: ItemResult) -> bool:
    """Return whether a write was refused, and certainly not applied, because of another writer."""
    return _is_race(answer) or (isinstance(answer, NotWrittenError) and answer.applied is Applied.NO)


def _is_race(answer: ItemResult) -> bool:
    """Return whether the record was gone, or did not match, when it was to be changed."""
    return isinstance(answer, ConflictError | NotFoundError) and answer.applied is Applied.NO


def _conflict(id: str) -> ConflictError:
    return ConflictError(f"record {id!r} kept changing: other writers were faster each time", record_id=id)


def _modify_op(op: ModifyWhere, ids: Sequence[str], *, atomic: bool) -> Modify:
    return Modify(op.collection, [Modification(id, op.changes, op.where) for id in ids], atomic)


def _results_of_matching(
    op: Modify, answers: Sequence[ItemResult], outrun: Sequence[int]
) -> list[ItemResult]:
    """Return the results without those of records that were gone or no longer matched."""
    lost = set(outrun)
    return [
        _conflict(item.id) if index in lost else answer
        for index, (item, answer) in enumerate(zip(op.modifications, answers, strict=True))
        if index in lost or not _is_race(answer)
    ]


def _count_changed(results: Sequence[ItemResult]) -> int:
    """Return how many records an `update_where` changed; raises `BatchError` if some could not be."""
    failed = [result for result in results if isinstance(result, IsthmusError)]
    if not failed:
        return len(results)
    causes = [error for error in failed if not isinstance(error, NotWrittenError)]
    changed = len(results) - len(failed)
    raise BatchError(
        f"update_where: {len(causes)} of {len(results)} records failed,"
        f" {f'{changed} were changed' if changed else 'nothing was changed'}. {causes[0]}",
        outcomes=results,
    )
