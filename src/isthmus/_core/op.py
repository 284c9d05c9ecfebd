"""Operations as immutable values, so that a layer is a single method."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar, cast

from isthmus._core.changes import ChangePage, Position, supporting_changes
from isthmus._core.executor import (
    After,
    AggregateRequest,
    AggregateResult,
    CountResult,
    Executor,
    ItemResult,
    Mutation,
    NativePlan,
    Page,
    PageRequest,
    WriteKind,
)
from isthmus._core.modify import Modification, SupportsModify, SupportsModifyBatch
from isthmus._core.supports import SupportsDrop
from isthmus._query.ast import TRUE, Predicate
from isthmus._query.changes import FieldChange
from isthmus._record import Record
from isthmus._value import Value, replace
from isthmus.errors import UnsupportedError

R = TypeVar("R")


class Op(Value, Generic[R]):
    """One operation on a collection; `apply` runs it on an executor."""

    collection: str
    name: ClassVar[str]
    writes: ClassVar[bool] = False
    """Whether it may change records."""
    idempotent: ClassVar[bool] = True
    """Whether repeating it leaves the same state and result."""

    @property
    def locks(self) -> bool:
        """Whether it locks the records that it reads."""
        return False

    async def apply(self, executor: Executor) -> R:
        """Run the operation."""
        raise NotImplementedError


class Read(Op[list[Record | None]]):
    """Get records by id."""

    ids: Sequence[str]
    for_update: bool = False
    name = "get"

    def __init__(self, collection: str, ids: Sequence[str], for_update: bool = False) -> None:
        # Written out for speed: a get from memory is a few of these.
        own = self.__dict__
        own["collection"], own["ids"], own["for_update"] = collection, ids, for_update

    @property
    def locks(self) -> bool:
        """Whether it locks the records that it reads."""
        return self.for_update

    async def apply(self, executor: Executor) -> list[Record | None]:
        return await executor.read(self.collection, self.ids, for_update=self.for_update)


class Write(Op[list[ItemResult]]):
    """Write a batch of one kind."""

    kind: WriteKind
    mutations: Sequence[Mutation]
    atomic: bool
    writes = True
    idempotent = False

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the method."""
        return self.kind.value

    async def apply(self, executor: Executor) -> list[ItemResult]:
        return await executor.write(self.collection, self.kind, self.mutations, atomic=self.atomic)


class Modify(Op[list[ItemResult]]):
    """Change parts of records by id; the plan layer runs it as native modifications, or reads and writes."""

    modifications: Sequence[Modification]
    atomic: bool
    merged: bool = False
    """Whether they are of several callers: those of one record may become one write."""
    name = "modify"
    writes = True
    idempotent = False


class ModifyWhere(Op[int]):
    """Change parts of the matching records; run as `Modify` is."""

    where: Predicate
    changes: tuple[FieldChange, ...]
    name = "update_where"
    writes = True
    idempotent = False


class NativeModify(Op["ItemResult | None"]):
    """Change part of one record natively; None if the store leaves it to the core."""

    modification: Modification
    name = "modify"
    writes = True
    idempotent = False

    async def apply(self, executor: Executor) -> ItemResult | None:
        return await _modifier(executor).modify(self.collection, self.modification)


class NativeModifyBatch(Op["list[ItemResult]"]):
    """Change parts of several records natively."""

    modifications: Sequence[Modification]
    atomic: bool
    name = "modify"
    writes = True
    idempotent = False

    async def apply(self, executor: Executor) -> list[ItemResult]:
        if not isinstance(executor, SupportsModifyBatch):
            raise UnsupportedError("this backend does not modify records natively", capability="modify")
        return await executor.modify_batch(self.collection, self.modifications, atomic=self.atomic)


class NativeModifyWhere(Op["int | None"]):
    """Change parts of the matching records natively; None if the store leaves it to the core."""

    where: Predicate
    changes: tuple[FieldChange, ...]
    name = "update_where"
    writes = True
    idempotent = False

    async def apply(self, executor: Executor) -> int | None:
        return await _modifier(executor).modify_where(self.collection, self.where, self.changes)


def _modifier(executor: Executor) -> SupportsModify:
    if not _modifies(type(executor)):
        raise UnsupportedError("this backend does not modify records natively", capability="modify")
    return cast("SupportsModify", executor)


@functools.cache
def _modifies(kind: type) -> bool:
    # A check against a protocol costs more than the rest of an operation here.
    return issubclass(kind, SupportsModify)


class Fetch(Op[Page]):
    """Get one page of a search."""

    request: PageRequest
    name = "search"

    @property
    def locks(self) -> bool:
        """Whether it locks the records that it reads."""
        return self.request.for_update

    async def apply(self, executor: Executor) -> Page:
        return await executor.fetch(self.collection, self.request)


class Count(Op[CountResult]):
    """Count matching records."""

    where: Predicate
    name = "count"

    async def apply(self, executor: Executor) -> CountResult:
        return await executor.count(self.collection, self.where)


class Aggregate(Op[AggregateResult]):
    """Compute aggregates."""

    request: AggregateRequest
    name = "aggregate"

    async def apply(self, executor: Executor) -> AggregateResult:
        return await executor.aggregate(self.collection, self.request)


class Remove(Op[int]):
    """Delete matching records."""

    where: Predicate
    name = "delete_where"
    writes = True
    idempotent = False  # the count differs, and what was written since would go too

    async def apply(self, executor: Executor) -> int:
        return await executor.remove(self.collection, self.where)


class Explain(Op[NativePlan]):
    """Return the native form of a request."""

    request: PageRequest
    name = "explain"

    async def apply(self, executor: Executor) -> NativePlan:
        return await executor.explain(self.collection, self.request)


class ReadChanges(Op[ChangePage]):
    """Get changes after a position, or the position of now; the plan layer evaluates `where`."""

    position: Position | None
    limit: int
    where: Predicate = TRUE
    name = "changes"

    async def apply(self, executor: Executor) -> ChangePage:
        store, position = supporting_changes(executor), self.position
        if position is None:
            return ChangePage((), await store.changes_position(self.collection), caught_up=True)
        if position.after is None:
            return await store.read_changes(self.collection, position, self.limit)
        records, more = await store.read_records(self.collection, position, self.limit)
        # After the last record come the changes since the first one was read.
        after = records[-1].id if more and records else None
        seen = (await store.changes_position(self.collection)).place
        return ChangePage(records, replace(position, after=after, seen=seen), caught_up=False)


class Open(Op[None]):
    """Connect and make a collection ready; deadline and retries apply as to any other operation."""

    name = "open"

    async def apply(self, executor: Executor) -> None:
        await executor.open(self.collection)


class Drop(Op[None]):
    """Delete a collection with all that belongs to it."""

    name = "drop_collection"
    writes = True

    async def apply(self, executor: Executor) -> None:
        if not isinstance(executor, SupportsDrop):
            raise UnsupportedError("this backend cannot drop a collection", capability="drop")
        await executor.drop(self.collection)


class Ping(Op[None]):
    """Do a round trip."""

    name = "ping"

    async def apply(self, executor: Executor) -> None:
        await executor.ping()


class Refresh(Op[None]):
    """Make earlier writes visible to searches by any handle."""

    name = "refresh"

    async def apply(self, executor: Executor) -> None:
        await executor.refresh(self.collection)


class Release(Op[None]):
    """Release the resource that an unfinished stream holds at the store."""

    after: After
    name = "release"

    async def apply(self, executor: Executor) -> None:
        await executor.release(self.collection, self.after)
