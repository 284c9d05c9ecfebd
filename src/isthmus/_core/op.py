"""Operations as immutable values, so that a layer is one method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

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
from isthmus._query.ast import Predicate
from isthmus._record import Record
from isthmus._value import Value

R = TypeVar("R")


class Op(Value, Generic[R]):
    """One operation on a collection; `apply` runs it on an executor."""

    collection: str
    name: ClassVar[str]
    writes: ClassVar[bool] = False
    """Whether it may change the store."""
    idempotent: ClassVar[bool] = True
    """Whether doing it twice leaves the same state and answer."""

    async def apply(self, executor: Executor) -> R:
        """Run the operation."""
        raise NotImplementedError


class Read(Op[list[Record | None]]):
    """Get records by id."""

    ids: Sequence[str]
    for_update: bool = False
    name = "get"

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
        """The verb."""
        return self.kind.value

    async def apply(self, executor: Executor) -> list[ItemResult]:
        return await executor.write(self.collection, self.kind, self.mutations, atomic=self.atomic)


class Fetch(Op[Page]):
    """Get one page of a search."""

    request: PageRequest
    name = "search"

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
    """Say what a store would run."""

    request: PageRequest
    name = "explain"

    async def apply(self, executor: Executor) -> NativePlan:
        return await executor.explain(self.collection, self.request)


class Release(Op[None]):
    """Give back what an unfinished stream holds."""

    after: After
    name = "release"

    async def apply(self, executor: Executor) -> None:
        await executor.release(self.collection, self.after)
