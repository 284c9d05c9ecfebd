"""Reads from a replica while the primary is unavailable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from isthmus._core.op import Aggregate, Count, Fetch, Op, Read
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus.errors import (
    IsthmusError,
    PoolTimeoutError,
    RateLimitedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from isthmus._core.executor import Backend

R = TypeVar("R")


class Failover(Layer):
    """Sends a read that the store could not serve to replicas, in order; writes never go there.

    A replica may lag, so a read that failed over may miss the handle's latest writes. The primary
    is tried first each time (the breaker makes that cheap while it is down).
    """

    order = LayerOrder.FAILOVER
    ops = (Read, Fetch, Count, Aggregate)

    def __init__(self, *, replicas: Sequence[Callable[[], Backend]]) -> None:
        self._builders = list(replicas)
        self._replicas: list[Backend] = []
        self._opened: set[tuple[int, str]] = set()
        self._failed_over = 0

    def metrics(self) -> dict[str, float]:
        """Return how many reads a replica served."""
        return {"failed_over": self._failed_over}

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation; on a replica if the store is unavailable."""
        try:
            return await call_next(op)
        except UnavailableError as error:
            # A full pool or a busy store is our load: a replica would be next.
            if isinstance(error, (PoolTimeoutError, RateLimitedError)) or not _can_fail_over(op):
                raise
            first = error
        if not self._replicas:
            self._replicas = [build() for build in self._builders]
        for index, replica in enumerate(self._replicas):
            try:
                if (index, op.collection) not in self._opened:
                    await replica.open(op.collection)
                    self._opened.add((index, op.collection))
                result: R = await op.apply(replica)
            except IsthmusError as error:
                first.add_note(f"replica {index + 1} failed too: {type(error).__name__}: {error}")
            else:
                self._failed_over += 1
                return result
        raise first

    async def close(self) -> None:
        """Close the replicas."""
        self._opened.clear()
        for replica in self._replicas:
            await replica.close()


def _can_fail_over(op: Op[R]) -> bool:
    """Return whether a replica can serve it: not a lock, a snapshot or the primary's own scan position."""
    if isinstance(op, Read):
        return not op.for_update
    if isinstance(op, Fetch):
        request = op.request
        bound = request.consistent or request.for_update
        return not bound and (request.after is None or request.order is not None)
    return True
