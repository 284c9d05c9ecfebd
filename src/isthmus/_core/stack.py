"""Layers around an executor, ordered by their declared place and never by the order of calls."""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from isthmus._core.executor import Executor
from isthmus._core.op import Fetch, Op
from isthmus._value import replace

R = TypeVar("R")
T = TypeVar("T")

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


class Next(Protocol):
    """The rest of the chain below a layer: runs an operation and returns its result."""

    def __call__(self, op: Op[R], /) -> Awaitable[R]: ...


class LayerOrder(enum.IntEnum):
    """Where a layer stands, outermost first, and why."""

    TRACE = 1  # a span covers all that a call did, retries included
    METRICS = 2  # the time that the user waited, so outside of everything that waits
    CACHE = 3  # a hit needs none of the layers below
    DEADLINE = 4  # one budget for planning and every attempt
    GUARD = 5  # refuses before any work is done
    PLAN = 6  # turns one operation into native ones; each is retried alone
    RETRY = 7  # below the plan, so that a page is repeated and not the search
    FAILOVER = 8  # another endpoint is tried within one attempt
    BREAKER = 9  # per endpoint, so below failover
    LIMIT = 10  # queueing belongs to an endpoint, and its time to the attempt's
    ATTEMPT_TIMEOUT = 11  # one attempt, without the queue
    CONTEXT = 12  # names the operation in errors, next to the store


# Names of 0.1.0 that a layer of a third party may override or read.
_FORMER_NAMES = {"slot": "order", "around": "wrap_transaction", "counts": "metrics"}


class Layer:
    """One concern around operations. Subclasses set `order` and write `handle`.

    A layer is shared by all operations of its handle; its state lives in it.
    """

    order: LayerOrder
    slot: LayerOrder
    """The name of `order` in 0.1.0; either may be set."""
    ops: tuple[type[Op[Any]], ...] | None = None
    """The operations that it handles; None is all. The others do not pass through it."""
    in_transaction: bool = False
    """Whether it also wraps operations in a transaction, where nothing may be repeated alone."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for former, name in _FORMER_NAMES.items():
            if name in cls.__dict__:
                setattr(cls, former, cls.__dict__[name])
            elif former in cls.__dict__:
                setattr(cls, name, cls.__dict__[former])

    def metrics(self) -> dict[str, float]:
        """Return the layer's counters and gauges, for `db.stats()`."""
        return {}

    def label(self) -> str:
        """Return its name in `db.stats()` and in `repr(db)`."""
        return _CAPITAL.sub("_", type(self).__name__).lower()

    def wrap_transaction(self, transaction: AbstractAsyncContextManager[T]) -> AbstractAsyncContextManager[T]:
        """Return a context manager around the beginning and the end of a transaction; itself by default."""
        return transaction

    counts = metrics
    around = wrap_transaction

    async def close(self) -> None:
        """Release the layer's resources; called when its handle is closed."""

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation, usually by awaiting `call_next(op)`."""
        raise NotImplementedError


class Stack:
    """Runs operations through layers on an executor; chains are built once for each kind of operation."""

    def __init__(self, layers: Sequence[Layer], executor: Executor) -> None:
        self.layers = tuple(sorted(layers, key=lambda layer: layer.order))
        self._executor = executor
        self._chains: dict[type[Op[Any]], Next] = {}

    def run(self, op: Op[R]) -> Awaitable[R]:
        """Return an awaitable of the operation's result."""
        chain = self._chains.get(type(op))
        if chain is None:
            chain = self._chains[type(op)] = self._build(type(op))
        return chain(op)

    def in_transaction(self, executor: Executor) -> Stack:
        """Return the stack of a transaction: of the layers that declare `in_transaction`, on its executor."""
        return Stack([layer for layer in self.layers if layer.in_transaction], executor)

    def _build(self, kind: type[Op[Any]]) -> Next:
        executor = self._executor

        def call(op: Op[R], /) -> Awaitable[R]:
            return op.apply(executor)

        chain: Next = call
        for layer in reversed(self.layers):
            if layer.ops is None or kind in layer.ops:
                chain = _wrap(layer, chain)
                if kind is Fetch and not type(layer).__module__.startswith("isthmus."):
                    chain = _ask_for_records(chain)
        return chain


def _ask_for_records(below: Next) -> Next:
    """Return a chain without the hint that texts will do: an application's layer may change the records."""

    def call(op: Any, /) -> Awaitable[Any]:
        return below(replace(op, request=replace(op.request, texts=False)))

    return call


def _wrap(layer: Layer, below: Next) -> Next:
    handle = layer.handle

    def call(op: Op[R], /) -> Awaitable[R]:
        return handle(op, below)

    return call
