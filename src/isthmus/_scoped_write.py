"""Writes by id inside a scope (meaning §5).

A record is first read through the scope, and then written under the version that was read: one that
another scope creates or takes over meanwhile is never touched. What lost such a race is run again.
"""

from __future__ import annotations

import copy
from _random import Random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from isthmus._core.apply import refusal, refuse_batch
from isthmus._core.clock import REPEAT_SECONDS, SYSTEM_CLOCK
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.op import Read, Write
from isthmus._ids import new_version
from isthmus._record import Record
from isthmus._scope import Scope
from isthmus._session import Session
from isthmus.errors import (
    AlreadyExistsError,
    Applied,
    ConflictError,
    InvalidRecordError,
    NotFoundError,
    UnsupportedError,
)

Atomically = Callable[[], AbstractAsyncContextManager[Session]]
"""Opens a transaction, or a savepoint in one, and returns the session inside."""
_PART = 90


class ScopedWrite:
    """Runs the writes of one operation on a session.

    `read` reads through the scope on that session, and `on_session` returns the same on another one.
    """

    def __init__(
        self,
        session: Session,
        scope: Scope,
        atomically: Atomically,
        read: Callable[[Read], Awaitable[list[Record | None]]],
        on_session: Callable[[Session], ScopedWrite],
    ) -> None:
        self._session = session
        self._scope = scope
        self._atomically = atomically
        self._read = read
        self._on_session = on_session

    async def write(self, op: Write) -> list[ItemResult]:
        """Write a batch and return one result for each item; all or nothing if the operation is atomic."""
        if op.kind is WriteKind.CREATE:
            return await self._create(op)
        if not op.atomic or len(op.mutations) == 1:
            return await self._write_in_rounds(op)
        if not self._session.executor.capabilities.transactions:
            raise UnsupportedError(
                f"{self._session.backend_name} has no transactions, which an atomic {op.kind.value}_batch"
                " of a scope needs; with atomic=False each item is written by itself",
                capability="transactions",
            )
        try:
            async with self._atomically() as session:
                results = await self._on_session(session)._write_in_rounds(op)
                refused = refuse_batch(op.mutations, results)
                if refused is not None:
                    raise _RolledBack(refused)
        except _RolledBack as rolled_back:
            return rolled_back.results
        return results

    async def _create(self, op: Write) -> list[ItemResult]:
        """Create records, completed by the scope's values; those that are invalid are refused."""
        results: list[ItemResult | None] = []
        valid: list[Mutation] = []
        for mutation in op.mutations:
            try:
                valid.append(self._scope.complete(mutation))
                results.append(None)
            except InvalidRecordError as error:
                error.record_id = mutation.id
                results.append(error)
        if op.atomic and len(valid) < len(results):
            return refuse_batch(op.mutations, [False if r is None else r for r in results]) or []
        written: list[ItemResult] = []
        if self._scope.row_security and len(valid) > _PART:
            written = await self._create_in_parts(op, valid)
        elif valid:
            written = await self._session.run(Write(op.collection, op.kind, valid, op.atomic))
        rest = iter(await self.hide_others(op.collection, valid, written))
        return [next(rest) if result is None else result for result in results]

    async def _create_in_parts(self, op: Write, valid: Sequence[Mutation]) -> list[ItemResult]:
        """Create in parts so small that the store takes no path (COPY) which has no row security."""
        try:
            async with self._atomically() as session:
                written: list[ItemResult] = []
                for start in range(0, len(valid), _PART):
                    part = valid[start : start + _PART]
                    results = await session.run(Write(op.collection, op.kind, part, atomic=False))
                    written.extend(results)
                refused = refuse_batch(valid, written) if op.atomic else None
                if refused is not None:
                    raise _RolledBack(refused)
        except _RolledBack as rolled_back:
            return rolled_back.results
        return written

    async def _write_in_rounds(self, op: Write) -> list[ItemResult]:
        """Write the items of each id one after another; those of different ids go together."""
        executor = self._session.executor
        lock = self._session.in_transaction and executor.capabilities.for_update
        results: list[ItemResult | None] = [None] * len(op.mutations)
        clashed: set[int] = set()
        async for _ in _attempts():
            while pending := _first_of_each_id(op, results):
                records = await self._read(Read(op.collection, tuple(pending), lock))
                before = results.count(None)
                await self._write_round(op, list(pending.values()), records, results, clashed)
                if results.count(None) == before:
                    break  # all of them lost a race
            if None not in results:
                break
        return [_race_error(m) if r is None else r for m, r in zip(op.mutations, results, strict=True)]

    async def _write_round(
        self,
        op: Write,
        indexes: Sequence[int],
        records: Sequence[Record | None],
        results: list[ItemResult | None],
        clashed: set[int],
    ) -> None:
        """Write one item for each id and put the results in place; a lost race leaves None."""
        groups: dict[WriteKind, list[tuple[int, Mutation]]] = {}
        for index, record in zip(indexes, records, strict=True):
            decided = self._decide(op.kind, op.mutations[index], record)
            if isinstance(decided, tuple):
                groups.setdefault(decided[0], []).append((index, decided[1]))
            else:
                results[index] = decided
        for kind, items in groups.items():
            mutations = [mutation for _, mutation in items]
            written = await self._session.run(Write(op.collection, kind, mutations, atomic=False))
            answers = await self.hide_others(op.collection, mutations, written)
            for (index, mutation), answer in zip(items, answers, strict=True):
                if isinstance(answer, AlreadyExistsError) and answer.record_id == mutation.id:
                    # Somebody has created it since it was read; or it is another scope's, and still not seen.
                    if index in clashed:
                        results[index] = answer
                    clashed.add(index)
                elif kind is WriteKind.CREATE and answer == mutation.id:
                    results[index] = await self._version_of(op.collection, mutation.id)
                elif not _is_lost_race(answer):
                    results[index] = answer

    def _decide(
        self, kind: WriteKind, mutation: Mutation, record: Record | None
    ) -> ItemResult | tuple[WriteKind, Mutation]:
        """Return an item's result, or the write that it is, given its record as the scope sees it."""
        version = None if record is None else record.version
        try:
            if kind is not WriteKind.DELETE:
                mutation.encode()
            error = refusal(kind, mutation, version)
            if error is not None:
                return error
            if kind is WriteKind.DELETE:
                return False if record is None else (kind, Mutation(mutation.id, None, None, version))
            if record is None:
                return WriteKind.CREATE, self._scope.complete(mutation)
            if kind is WriteKind.UPDATE:
                self._scope.check({**record.data, **mutation.decode()})
                patch = Mutation(mutation.id, None, None, version)
                patch.raw, patch.raw_metadata = mutation.encode(), mutation.encode_metadata()
                return kind, patch
            whole = self._scope.complete(mutation)
            whole.if_version = version
            return kind, whole
        except InvalidRecordError as invalid:
            invalid.record_id = mutation.id
            return invalid

    async def _version_of(self, collection: str, id: str) -> str:
        """Return the version of a record that an upsert created; a new one if it is gone already."""
        [record] = await self._read(Read(collection, (id,)))
        return str(new_version()) if record is None or record.version is None else record.version

    async def hide_others(
        self, collection: str, mutations: Sequence[Mutation] | None, results: Sequence[ItemResult]
    ) -> list[ItemResult]:
        """Return the results without the id of a record that only another scope sees.

        A value of a unique field clashes with any scope's. `mutations` are None where they are unknown.
        """
        answers = list(results)
        for index, result in enumerate(results):
            own = None if mutations is None else mutations[index].id
            if isinstance(result, AlreadyExistsError) and result.record_id not in (own, None):
                [record] = await self._read(Read(collection, (str(result.record_id),)))
                answers[index] = result if record is not None else _without_id(result)
        return answers


class _RolledBack(Exception):
    """Leaves the transaction of an atomic batch of which an item was refused."""

    def __init__(self, results: list[ItemResult]) -> None:
        self.results = results


def _first_of_each_id(op: Write, results: Sequence[ItemResult | None]) -> dict[str, int]:
    """Return for each id the first item that has no result yet."""
    pending: dict[str, int] = {}
    for index, result in enumerate(results):
        if result is None:
            pending.setdefault(op.mutations[index].id, index)
    return pending


def _is_lost_race(answer: ItemResult) -> bool:
    """Return whether a write was refused, and not applied, because of what happened since the read."""
    return isinstance(answer, ConflictError | NotFoundError) and answer.applied is Applied.NO


def _without_id(error: AlreadyExistsError) -> AlreadyExistsError:
    """Return the error of a clash with a record that the caller must not learn about."""
    hidden = copy.copy(error)
    field = getattr(error, "field", None)
    hidden.args = (f"{field or 'a unique field'}: another record already has this value",)
    hidden.record_id = None
    return hidden


def _race_error(mutation: Mutation) -> ConflictError:
    return ConflictError(
        f"record {mutation.id!r} kept changing: other writers were faster each time", record_id=mutation.id
    )


async def _attempts() -> AsyncIterator[None]:
    """Yield at once, then after growing random pauses until the time is over."""
    until = SYSTEM_CLOCK.now() + REPEAT_SECONDS
    random, limit = Random().random, 0.002
    yield
    while SYSTEM_CLOCK.now() < until:
        await SYSTEM_CLOCK.sleep(random() * limit)
        limit = min(limit * 2, 0.25)
        yield
