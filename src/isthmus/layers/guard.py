"""Refuses operations that the backend's capabilities do not cover, before any work."""

from __future__ import annotations

from typing import TypeVar

from isthmus._core.executor import Executor, WriteKind
from isthmus._core.op import Aggregate, Count, Fetch, Modify, ModifyWhere, Op, ReadChanges, Remove, Write
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus._path import Root
from isthmus._query.ast import KNN, RANKED, Not, Or, Predicate, TextMatch, leaves
from isthmus._query.shape import shape_of
from isthmus.errors import QueryError, UnsupportedError

R = TypeVar("R")


class Guard(Layer):
    """Checks each operation against the capabilities; a missing one is refused, never imitated."""

    order = LayerOrder.GUARD
    in_transaction = True
    ops = (Write, Modify, ModifyWhere, Fetch, Count, Aggregate, Remove, ReadChanges)

    def __init__(self, backend: str, executor: Executor) -> None:
        self._backend = backend
        self._executor = executor

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation if the backend is capable of it."""
        self.check(op)
        return await call_next(op)

    def check(self, op: Op[R]) -> None:
        """Raise `UnsupportedError` or `QueryError` for an operation that the backend cannot run."""
        if op.writes and not self._executor.capabilities.writes:
            self._refuse(f"{op.name}(): it is read-only", "writes")
        match op:
            case Write():
                self._check_write(op)
            case Modify() | ModifyWhere():
                self._check_modify(op)
            case Fetch():
                self._check_fetch(op)
            case Count() | Remove() | ReadChanges():
                self._check_predicate(op.where)
            case Aggregate():
                self._check_predicate(op.request.where)

    def _check_write(self, op: Write) -> None:
        can = self._executor.capabilities
        if op.kind is WriteKind.CREATE and not can.conditional_create:
            self._refuse(
                "create(), which must refuse an id that exists; upsert() works", "conditional_create"
            )
        if op.atomic and not can.atomic_batch:
            self._refuse("an atomic batch", "atomic_batch")
        if not can.compare_and_set:
            if op.kind in (WriteKind.UPDATE, WriteKind.REPLACE) and not can.modify:
                self._refuse(f"{op.kind.value}(), which must not lose a concurrent write", "compare_and_set")
            if any(mutation.if_version is not None for mutation in op.mutations):
                self._refuse("if_version", "compare_and_set")

    def _check_modify(self, op: Modify | ModifyWhere) -> None:
        can = self._executor.capabilities
        if not (can.modify or can.compare_and_set):
            self._refuse(f"{op.name}(), which must not lose a concurrent write", "compare_and_set")
        conditional = isinstance(op, Modify) and any(item.if_version is not None for item in op.modifications)
        if conditional and not can.compare_and_set:
            self._refuse("if_version", "compare_and_set")
        if isinstance(op, Modify) and op.atomic and not can.atomic_batch:
            self._refuse("an atomic batch", "atomic_batch")

    def _check_fetch(self, op: Fetch) -> None:
        request = op.request
        if request.consistent and not self._executor.capabilities.consistent_stream:
            self._refuse("stream(consistent=True)", "consistent_stream")
        if request.for_update and not self._executor.capabilities.for_update:
            self._refuse("for_update", "for_update")
        self._check_predicate(request.where)
        for key in request.order or ():
            if key.path.root is Root.SCORE:
                ranked = any(isinstance(leaf, RANKED) for leaf in leaves(request.where))
                can = self._executor.capabilities
                if not (can.relevance or can.vectors):
                    self._refuse("order by _score", "relevance")
                if not key.descending or not ranked:
                    raise QueryError(
                        "order by _score needs match() or nearest() in the query and the direction 'desc'"
                    )
        if request.highlight and not any(isinstance(leaf, TextMatch) for leaf in leaves(request.where)):
            raise QueryError(
                "highlights need match() in the query: without words there is nothing to highlight"
            )

    def _check_predicate(self, where: Predicate) -> None:
        if shape_of(where) is not None:  # it has none of the leaves that are looked for here
            return
        found = leaves(where)
        if any(leaf.path.root is Root.SCORE for leaf in found):
            raise QueryError("_score can be sorted by, not filtered")
        ranked = [leaf for leaf in found if isinstance(leaf, RANKED)]
        if not ranked:
            return
        near = sum(isinstance(leaf, KNN) for leaf in ranked)
        if near < len(ranked) and not self._executor.capabilities.relevance:
            self._refuse("match(); a plain text search is contains() or regex()", "relevance")
        if near and not self._executor.capabilities.vectors:
            self._refuse("nearest()", "vectors")
        if _below_or(where, inside=False):
            raise QueryError("match() and nearest() stand alone or in an 'and', not under 'or' or 'not'")
        if near and len(ranked) > 1:
            raise QueryError("nearest() stands in a query once, and not together with match(): which ranks?")

    def _refuse(self, what: str, capability: str) -> None:
        raise UnsupportedError(f"{self._backend} cannot do {what}", capability=capability)


def _below_or(where: Predicate, *, inside: bool) -> bool:
    match where:
        case TextMatch() | KNN():
            return inside
        case Or(terms):
            return any(_below_or(term, inside=True) for term in terms)
        case Not(term):
            return _below_or(term, inside=True)
    return any(_below_or(term, inside=inside) for term in getattr(where, "terms", ()))
