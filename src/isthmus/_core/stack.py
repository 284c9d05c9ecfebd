"""Layers around an executor, ordered by their declared place and never by the order of calls."""

from __future__ import annotations

import enum
import functools
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


class _Chain(Protocol):
    """Layers in order, ending at whichever executor is passed in."""

    def __call__(self, executor: Executor, op: Op[R], /) -> Awaitable[R]: ...


class Stack:
    """Runs operations through layers; chains are built once for each kind of operation.

    The executor is passed with each operation, so that a transaction runs on the stack of its
    database: only the layers that declare `in_transaction` take part in one.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(sorted(layers, key=lambda layer: layer.order))
        self._chains: dict[type[Op[Any]], _Chain] = {}
        self._transaction_chains: dict[type[Op[Any]], _Chain] = {}

    def run(self, op: Op[R], executor: Executor, *, in_transaction: bool = False) -> Awaitable[R]:
        """Return an awaitable of the operation's result on an executor."""
        chains = self._transaction_chains if in_transaction else self._chains
        chain = chains.get(type(op))
        if chain is None:
            layers = [layer for layer in self.layers if layer.in_transaction or not in_transaction]
            chain = chains[type(op)] = _chain(layers, type(op))
        return chain(executor, op)


def _apply(executor: Executor, op: Op[R], /) -> Awaitable[R]:
    return op.apply(executor)


def _chain(layers: Sequence[Layer], kind: type[Op[Any]]) -> _Chain:
    call: _Chain = _apply
    for layer in reversed(layers):
        if layer.ops is None or kind in layer.ops:
            call = _wrap(layer, call)
            if kind is Fetch and not type(layer).__module__.startswith("isthmus."):
                call = _ask_for_records(call)
    return call


def _ask_for_records(below: _Chain) -> _Chain:
    """Return a chain without the hint that texts will do: an application's layer may change the records."""

    def call(executor: Executor, op: Any, /) -> Awaitable[Any]:
        return below(executor, replace(op, request=replace(op.request, texts=False)))

    return call


def _wrap(layer: Layer, below: _Chain) -> _Chain:
    handle = layer.handle

    def call(executor: Executor, op: Op[R], /) -> Awaitable[R]:
        return handle(op, functools.partial(below, executor))

    return call
