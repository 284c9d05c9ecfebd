"""Modifications where the store has none: read, change, and write under the version that was read.

A write that lost a race to another writer was not applied, so the record is read again; after some
attempts with pauses. The deadline bounds this, not a number of attempts.
"""

from __future__ import annotations

import functools
from _random import Random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

from isthmus._core.apply import refuse_batch
from isthmus._core.clock import REPEAT_SECONDS, Clock
from isthmus._core.executor import Executor, ItemResult, Mutation, WriteKind
from isthmus._core.modify import Modification, SupportsModifyBatch
from isthmus._core.modify_rows import modify_in_order
from isthmus._core.offload import LONG, run_in_thread
from isthmus._core.op import Modify, ModifyWhere, NativeModifyBatch, Read, Write
from isthmus._core.stack import Next
from isthmus._ids import new_version
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
from isthmus.layers._call_state import CALL

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
    return await CompareAndSet(call_next, clock, for_update=executor.capabilities.for_update).modify(op)


class _ReadRows:
    """The records that were read, as `modify_in_order` changes them; `changed` holds what to write."""

    def __init__(self, records: dict[str, Record]) -> None:
        self._records = dict(records)
        self.changed: dict[str, tuple[bytes, bytes]] = {}

    def record(self, id: str) -> Record | None:
        return self._records.get(id)

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        old, version = self._records[id], str(new_version())
        self.changed[id] = data, metadata
        record = make_record(id, decode(data), decode(metadata), version, old._created, old._updated)
        self._records[id] = record
        return version


class CompareAndSet:
    """Applies modifications by reading records and writing each under the version that was read.

    `for_update`: records are read with a lock, so that no replica serves the read and a transaction
    sees what it is going to change.
    """

    def __init__(self, call_next: Next, clock: Clock, *, for_update: bool) -> None:
        self._call_next = call_next
        self._clock = clock
        self._for_update = for_update

    async def modify(self, op: Modify) -> list[ItemResult]:
        """Apply modifications and return one result for each, in order.

        Those of one record become one write, with `op.atomic` all of them one atomic write. Raises
        a `StoreError` that no item survived.
        """
        results, outrun = await self._modify(op)
        for index in outrun:
            results[index] = _conflict(op.modifications[index].id)
        refused = refuse_batch(op.modifications, results) if op.atomic else None
        return results if refused is None else refused

    async def _modify(self, op: Modify) -> tuple[list[ItemResult], list[int]]:
        """Return the results, and the indexes of the items that lost every race: they have no result."""
        until = min(CALL.get().until, self._clock.now() + REPEAT_SECONDS)
        results: list[ItemResult] = [False] * len(op.modifications)
        pending = list(range(len(results)))
        refused: set[str] = set()
        async for _ in _attempts(self._clock, until):
            items = [op.modifications[index] for index in pending]
            try:
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
        """Apply items once; the result of one that lost a race is None.

        `refused_ids` gets the records that the store refuses as they are with all modifications.
        """
        ids = list(dict.fromkeys(item.id for item in items))
        found = await self._call_next(Read(op.collection, ids, self._for_update))
        records = {id: record for id, record in zip(ids, found, strict=True) if record is not None}
        rows = _ReadRows(records)
        outcomes = await _evaluate(rows, items, records)
        refused = refuse_batch(items, outcomes) if op.atomic else None
        if refused is not None:
            return [*refused]
        answers = await self._write(op, rows.changed, records)
        failed = [answer for answer in answers.values() if isinstance(answer, IsthmusError)]
        if op.atomic and failed:
            lost = all(map(_is_lost_race, failed)) and not all(isinstance(e, NotWrittenError) for e in failed)
            return [None if lost else answers[item.id] for item in items]
        refused_ids.update(id for id, answer in answers.items() if isinstance(answer, _REFUSALS))
        return [
            _merge_result(outcome, answers.get(item.id))
            for item, outcome in zip(items, outcomes, strict=True)
        ]

    async def _write(
        self, op: Modify, changed: dict[str, tuple[bytes, bytes]], records: dict[str, Record]
    ) -> dict[str, ItemResult]:
        """Replace records under the versions that were read and return each one's result."""
        writes = []
        for id, (data, metadata) in changed.items():
            mutation = Mutation(id, None, None, records[id].version)
            mutation.raw, mutation.raw_metadata = data, metadata
            writes.append(mutation)
        if not writes:
            return {}
        written = await self._call_next(Write(op.collection, WriteKind.REPLACE, writes, op.atomic))
        return {mutation.id: answer for mutation, answer in zip(writes, written, strict=True)}

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
            matching = [id for id, answer in zip(ids, answers, strict=True) if not _is_passed_over(answer)]
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


def _merge_result(outcome: ItemResult, answer: ItemResult | None) -> ItemResult | None:
    """Return an item's result, given that of its record's write; None if that lost a race."""
    if answer is None:  # nothing was written: all modifications of the record were refused
        return outcome
    if isinstance(answer, IsthmusError) and _is_lost_race(answer):
        return None
    return outcome if isinstance(outcome, IsthmusError) else answer


def _is_lost_race(answer: ItemResult) -> bool:
    """Return whether a write was refused, and certainly not applied, because of another writer."""
    return (
        isinstance(answer, ConflictError | NotFoundError | NotWrittenError) and answer.applied is Applied.NO
    )


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
        if index in lost or not _is_passed_over(answer)
    ]


def _is_passed_over(answer: ItemResult) -> bool:
    """Return whether a record was gone, or no longer matched, when it was to be changed."""
    return isinstance(answer, ConflictError | NotFoundError) and answer.applied is Applied.NO


def _count_changed(results: Sequence[ItemResult]) -> int:
    failed = [result for result in results if isinstance(result, IsthmusError)]
    if failed:
        raise _failure(results)
    return len(results)


def _failure(results: Sequence[ItemResult]) -> BatchError:
    """Return the error of an `update_where` in which some records could not be changed."""
    failed = [result for result in results if isinstance(result, IsthmusError)]
    causes = [error for error in failed if not isinstance(error, NotWrittenError)]
    changed = len(results) - len(failed)
    return BatchError(
        f"update_where: {len(causes)} of {len(results)} records failed,"
        f" {f'{changed} were changed' if changed else 'nothing was changed'}. {causes[0]}",
        outcomes=results,
    )
