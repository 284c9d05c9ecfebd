"""The session of a scope: every operation is confined to the scope's records (meaning §5).

Searches get the scope as a further condition; what a read by id finds outside of it is missing.
"""

from __future__ import annotations

from typing import Any, TypeVar

from isthmus._core.apply import not_found, refusal, refuse_batch
from isthmus._core.executor import Executor, ItemResult, PageRequest, WriteKind
from isthmus._core.modify import Modification
from isthmus._core.modify_rows import condition_failed
from isthmus._core.op import Aggregate, Count, Explain, Fetch, Modify, ModifyWhere, Op, Read, Remove, Write
from isthmus._path import Path, Root
from isthmus._query.ast import TRUE, And, In, Predicate
from isthmus._query.changes import apply_changes
from isthmus._query.evaluate import matches
from isthmus._query.normalize import flatten
from isthmus._record import Record
from isthmus._scope import Scope
from isthmus._scoped_write import Atomically, ScopedWrite
from isthmus._session import Session
from isthmus._value import replace
from isthmus.errors import BatchError, ConflictError, InvalidRecordError, UnsupportedError

R = TypeVar("R")

_ID = Path(Root.ID, ())
_ABOUT_RECORDS = (Read, Fetch, Count, Aggregate, Explain, Write, Modify, ModifyWhere, Remove)
_LEAVES = "data: the record would leave its scope"


class ScopedSession:
    """Runs operations of another session inside a scope."""

    def __init__(self, inner: Session, scope: Scope, atomically: Atomically) -> None:
        self._inner = inner
        self._scope = scope
        self._atomically = atomically
        self.scope = scope.predicate
        self.prefetch = inner.prefetch
        self.backend_name = inner.backend_name
        self.cursor_secret = inner.cursor_secret
        self.ends = inner.ends

    @property
    def executor(self) -> Executor:
        """Return the executor at the bottom of the stack."""
        return self._inner.executor

    @property
    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        return self._inner.in_transaction

    async def refresh(self, collection: str) -> None:
        """Make earlier writes visible to searches by any handle."""
        await self._inner.refresh(collection)

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """Return the server settings of the open transaction."""
        return self._inner.settings

    async def run(self, op: Op[R]) -> R:
        """Run an operation on the records of the scope."""
        if self._scope.row_security and not self.in_transaction and type(op) in _ABOUT_RECORDS:
            return await self._run_in_transaction(op)
        result: Any
        match op:
            case Read():
                result = await self.read(op)
            case Fetch():
                request = replace(op.request, where=self._confine(op.request.where))
                result = await self._inner.run(replace(op, request=request))
            case Aggregate():
                aggregated = replace(op.request, where=self._confine(op.request.where))
                result = await self._inner.run(replace(op, request=aggregated))
            case Count() | Remove():
                result = await self._inner.run(replace(op, where=self._confine(op.where)))
            case Write():
                result = await self._writes(self._inner).write(op)
            case Modify():
                result = await self._modify(op)
            case ModifyWhere():
                result = await self._modify_where(op)
            case _:  # opens, pings, releases: about no record
                result = await self._inner.run(op)
        return result  # type: ignore[no-any-return]

    async def _run_in_transaction(self, op: Op[R]) -> R:
        """Run an operation in a transaction of its own, which has the setting for the store's policies."""
        if isinstance(op, Fetch) and op.request.consistent:
            raise UnsupportedError(
                "stream(consistent=True) of a scope with row_security=True needs an open transaction",
                capability="consistent_stream",
            )
        async with self._atomically() as session:
            return await ScopedSession(session, self._scope, self._atomically).run(op)

    def _writes(self, session: Session) -> ScopedWrite:
        inside = self if session is self._inner else ScopedSession(session, self._scope, self._atomically)
        return ScopedWrite(session, self._scope, self._atomically, inside.read, self._writes)

    def _confine(self, where: Predicate) -> Predicate:
        return self.scope if where == TRUE else flatten(And((self.scope, where)))

    async def read(self, op: Read) -> list[Record | None]:
        """Return the records of these ids, None for one that the scope does not see."""
        if not op.for_update:
            records = await self._inner.run(op)
            return [r if r is not None and matches(self.scope, r) else None for r in records]
        # A search locks the scope's own records only.
        where = self._confine(In(_ID, tuple(dict.fromkeys(op.ids))))
        request = PageRequest(where, (), None, for_update=True)
        page = await self._inner.run(Fetch(op.collection, request))
        found = {record.id: record for record in page.records}
        return [found.get(id) for id in op.ids]

    # Modifications

    async def _modify(self, op: Modify) -> list[ItemResult]:
        items = [
            Modification(item.id, item.changes, self._confine(item.where), item.if_version)
            for item in op.modifications
        ]
        results: list[ItemResult | None] = [None] * len(items)
        for index, item in enumerate(op.modifications):
            if self._scope.is_left_by(item.changes):
                results[index] = await self._refuse_leaving(op.collection, item)
        if any(result is not None for result in results) and op.atomic:
            return refuse_batch(op.modifications, [False if r is None else r for r in results]) or []
        kept = [item for item, result in zip(items, results, strict=True) if result is None]
        modified: list[ItemResult] = []
        if kept:
            modified = await self._inner.run(Modify(op.collection, kept, op.atomic))
        rest = iter(modified)
        answers = [next(rest) if result is None else result for result in results]
        answers = await self._writes(self._inner).hide_others(op.collection, op.modifications, answers)
        return [
            await self._as_missing(op.collection, item, answer)
            for item, answer in zip(op.modifications, answers, strict=True)
        ]

    async def _refuse_leaving(self, collection: str, item: Modification) -> ItemResult:
        """Return the error of a modification that would make its record leave the scope."""
        [record] = await self.read(Read(collection, (item.id,)))
        error = refusal(WriteKind.UPDATE, item, None if record is None else record.version)
        if error is not None or record is None:
            return error or not_found(item.id)
        if item.where != TRUE and not matches(item.where, record):
            return condition_failed(item.id)
        try:
            apply_changes(record.data, item.changes)
        except InvalidRecordError as invalid:
            invalid.record_id = item.id
            return invalid
        return InvalidRecordError(_LEAVES, path="data", record_id=item.id)

    async def _as_missing(self, collection: str, item: Modification, answer: ItemResult) -> ItemResult:
        """Return `NotFoundError` in place of a conflict with a record that the scope does not see."""
        if not isinstance(answer, ConflictError):
            return answer
        [record] = await self.read(Read(collection, (item.id,)))
        return not_found(item.id) if record is None else answer

    async def _modify_where(self, op: ModifyWhere) -> int:
        if self._scope.is_left_by(op.changes):
            raise InvalidRecordError(_LEAVES, path="data")
        try:
            return await self._inner.run(replace(op, where=self._confine(op.where)))
        except BatchError as error:
            shown = await self._writes(self._inner).hide_others(op.collection, None, error.outcomes)
            if all(one is other for one, other in zip(shown, error.outcomes, strict=True)):
                raise
            message = "update_where: a value is taken in a unique field"
        raise BatchError(message, outcomes=shown)
