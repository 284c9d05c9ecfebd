"""Merges concurrent modifications of one record: a hot counter costs one write for many callers."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from typing import Any, TypeVar

from isthmus._core.executor import ItemResult
from isthmus._core.modify import Modification
from isthmus._core.op import Modify, Op
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus.errors import IsthmusError

R = TypeVar("R")

MAX_BATCH = 500
"""Modifications of one request."""


class Merge(Layer):
    """Collects the modifications of a record that are made while an earlier one is under way.

    The first runs at once. The others become one request when it has ended; each caller gets its
    own result, and cancelling one does not affect the others. A handle's own calls are merged only,
    and none of a transaction.
    """

    order = LayerOrder.PLAN  # and listed before the plan, which reads and writes the merged ones
    ops = (Modify,)

    def __init__(self) -> None:
        self._records: dict[tuple[asyncio.AbstractEventLoop, str, str], _Queue] = {}

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation, or join the next request for the same record."""
        if not isinstance(op, Modify):
            return await call_next(op)
        result: Any = await self._modify(op, call_next)
        return result  # type: ignore[no-any-return]

    async def _modify(self, op: Modify, call_next: Next) -> list[ItemResult]:
        if len(op.modifications) != 1:
            return await call_next(op)
        [item] = op.modifications
        key = asyncio.get_running_loop(), op.collection, item.id
        queue = self._records.get(key)
        if queue is not None:
            return [await queue.join(item)]
        queue = self._records[key] = _Queue(op.collection, call_next)
        try:
            return await call_next(op)
        finally:
            if queue.waiting:
                task = asyncio.get_running_loop().create_task(
                    self._run_waiting(key, queue), name="isthmus-merged-modifications"
                )
                queue.task = task  # a reference, for as long as it runs
            else:
                del self._records[key]

    async def _run_waiting(self, key: tuple[asyncio.AbstractEventLoop, str, str], queue: _Queue) -> None:
        try:
            while queue.waiting:
                await queue.run()
        finally:
            del self._records[key]


class _Queue:
    """The modifications that wait for the one of the same record that is under way."""

    def __init__(self, collection: str, call_next: Next) -> None:
        self._collection = collection
        self._call_next = call_next
        self.waiting: list[tuple[Modification, asyncio.Future[ItemResult]]] = []
        self.task: asyncio.Task[None] | None = None

    async def join(self, item: Modification) -> ItemResult:
        """Return the result of a modification that becomes part of the next request."""
        future: asyncio.Future[ItemResult] = asyncio.get_running_loop().create_future()
        self.waiting.append((item, future))
        return await future

    async def run(self) -> None:
        """Run those that wait as one request; those of cancelled callers are left out."""
        calls, self.waiting = self.waiting[:MAX_BATCH], self.waiting[MAX_BATCH:]
        calls = [call for call in calls if not call[1].done()]
        if not calls:
            return
        request = Modify(self._collection, [item for item, _ in calls], atomic=False, merged=True)
        try:
            results = await self._call_next(request)
        except asyncio.CancelledError:  # the loop is ending
            for _, future in [*calls, *self.waiting]:
                future.cancel()
            raise
        except Exception as error:  # of any kind: the callers get it
            _fail([future for _, future in calls], error)
            return
        for (_, future), result in zip(calls, results, strict=True):
            if not future.done():
                future.set_result(result)


def _fail(futures: Sequence[asyncio.Future[ItemResult]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            # Each caller raises a copy: raising writes a traceback into the object.
            own = copy.copy(error) if isinstance(error, IsthmusError) else error
            own.__cause__ = error.__cause__
            future.set_exception(own)
