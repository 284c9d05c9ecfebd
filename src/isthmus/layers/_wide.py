"""Queries of thousands of conditions: folded in a thread, since that takes tens of milliseconds."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

from isthmus._core.executor import AggregateRequest, PageRequest
from isthmus._core.offload import run_in_thread
from isthmus._core.op import Aggregate, Count, Fetch, ModifyWhere, Op, ReadChanges, Remove
from isthmus._query.ast import MAX_DISTINCT, Predicate
from isthmus._query.shape import is_wide
from isthmus._query.split import fold
from isthmus._value import replace

R = TypeVar("R")


async def fold_wide(op: Op[R]) -> Op[R]:
    """Return an operation with the equalities of a wide query folded; others are returned as they are.

    Raises `QueryError` if too many conditions are left.
    """
    where = _condition(op)
    if where is None or not is_wide(where, MAX_DISTINCT):
        return op
    folded = await run_in_thread(partial(fold, where))
    request: PageRequest | AggregateRequest | None = getattr(op, "request", None)
    if request is None:
        return replace(op, where=folded)
    return replace(op, request=replace(request, where=folded))


async def refuse_wide(where: Predicate) -> None:
    """Raise `QueryError` if a condition has too many leaves once its equalities are folded."""
    if is_wide(where, MAX_DISTINCT):
        await run_in_thread(partial(fold, where))


def _condition(op: Op[Any]) -> Predicate | None:
    if isinstance(op, Fetch | Aggregate):
        return op.request.where
    return op.where if isinstance(op, Count | Remove | ModifyWhere | ReadChanges) else None
