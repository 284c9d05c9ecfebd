"""Layers around an executor, ordered by their slot and never by the order of calls."""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias, TypeVar

from isthmus._executor import Executor
from isthmus._op import Op

R = TypeVar("R")
T = TypeVar("T")
Next: TypeAlias = Callable[[Op[Any]], Awaitable[Any]]

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


class Slot(enum.IntEnum):
    """Where a layer stands, outermost first, and why."""

    TRACE = 1  # a span covers all that a call did, retries included
    METRICS = 2  # what the user waited, so outside of everything that waits
    CACHE = 3  # a hit needs none of the below
    DEADLINE = 4  # one budget for planning and every attempt
    GUARD = 5  # refuses before work is done for nothing
    PLAN = 6  # turns one operation into native ones; each is retried alone
    RETRY = 7  # below the plan, so that a page is repeated and not the search
    FAILOVER = 8  # another endpoint is tried within one attempt
    BREAKER = 9  # per endpoint, so below failover
    LIMIT = 10  # queueing belongs to an endpoint, and its time to the attempt's
    ATTEMPT_TIMEOUT = 11  # one attempt, without the queue
    CONTEXT = 12  # names the operation in errors, next to the store


class Layer:
    """One concern around operations. Subclasses set `slot` and write `handle`.

    A layer is shared by all operations of its handle; its state lives in it.
    """

    slot: Slot
    ops: tuple[type[Op[Any]], ...] | None = None
    """The operations that it handles; None is all. The others do not pass through it."""
    in_transaction: bool = False
    """Whether it also stands around operations in a transaction, where nothing may be repeated alone."""

    def counts(self) -> dict[str, float]:
        """Return what the layer counts, for `db.stats()`."""
        return {}

    def label(self) -> str:
        """Return its name in `db.stats()` and in `repr(db)`."""
        return _CAPITAL.sub("_", type(self).__name__).lower()

    def around(self, transaction: AbstractAsyncContextManager[T]) -> AbstractAsyncContextManager[T]:
        """Return what stands around the beginning and the end of a transaction; itself by default."""
        return transaction

    async def close(self) -> None:
        """Give back what the layer holds; called when its handle is closed."""

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation, mostly by awaiting `call_next(op)`."""
        raise NotImplementedError


class Stack:
    """Runs operations through layers on an executor; chains are built once for each kind of operation."""

    def __init__(self, layers: Sequence[Layer], executor: Executor) -> None:
        self.layers = tuple(sorted(layers, key=lambda layer: layer.slot))
        self.executor = executor
        self._chains: dict[type[Op[Any]], Next] = {}

    def run(self, op: Op[R]) -> Awaitable[R]:
        """Return an awaitable of the operation's result."""
        chain = self._chains.get(type(op))
        if chain is None:
            chain = self._chains[type(op)] = self._chain(type(op))
        return chain(op)

    def _chain(self, kind: type[Op[Any]]) -> Next:
        executor = self.executor

        call: Next = lambda op: op.apply(executor)  # noqa: E731 - rebound below
        for layer in reversed(self.layers):
            if layer.ops is None or kind in layer.ops:
                call = _around(layer, call)
        return call


def _around(layer: Layer, call_next: Next) -> Callable[[Op[Any]], Awaitable[Any]]:
    handle = layer.handle
    return lambda op: handle(op, call_next)
