"""Bounds a whole call: planning, queueing, every attempt and the pauses between them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TypeVar

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._core.op import Op
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus.errors import Applied, DeadlineError
from isthmus.layers._call_state import CALL, CallState, run_bounded

R = TypeVar("R")
T = TypeVar("T")


class Deadline(Layer):
    """Ends a call after some seconds by `DeadlineError`; each page of a stream is a call.

    Inner layers know the deadline: a retry whose pause would outlast it is not started, so that
    the error is the store's and not the deadline's.
    """

    order = LayerOrder.DEADLINE
    in_transaction = True

    def __init__(self, *, seconds: float = 10.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self._seconds = seconds
        self._clock = clock

    def wrap_transaction(self, transaction: AbstractAsyncContextManager[T]) -> AbstractAsyncContextManager[T]:
        """Bound the start and the end of a transaction; the operations inside are bounded one by one."""
        return _Ends(transaction, self._seconds, self._clock)

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation within the deadline."""
        call = CallState(self._clock.now() + self._seconds)
        token = CALL.set(call)
        try:
            return await run_bounded(op, call_next, self._clock, self._seconds, "deadline", call)
        finally:
            CALL.reset(token)


class _Ends(AbstractAsyncContextManager[T]):
    """A context manager whose entering and leaving take no longer than a deadline each."""

    def __init__(self, inner: AbstractAsyncContextManager[T], seconds: float, clock: Clock) -> None:
        self._inner = inner
        self._seconds = seconds
        self._clock = clock

    async def __aenter__(self) -> T:
        timer = self._clock.timeout(self._seconds)
        try:
            async with timer as running:
                return await self._inner.__aenter__()
        except TimeoutError:
            if not running.expired():
                raise
        raise DeadlineError(f"the transaction did not start within {self._seconds:g} s (deadline)")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        timer = self._clock.timeout(self._seconds)
        try:
            async with timer as running:
                return await self._inner.__aexit__(kind, error, trace)
        except TimeoutError as late:
            if not running.expired():
                raise
            if error is not None:
                # The store rolls back when the connection closes; the block's own error says more.
                error.add_note(f"the rollback timed out after {self._seconds:g} s ({late!r})")
                return False
        raise DeadlineError(
            f"the commit timed out after {self._seconds:g} s (deadline)",
            applied=Applied.MAYBE,
        )
