"""Bounds one attempt, so that a stalled one leaves time for a retry."""

from __future__ import annotations

from typing import TypeVar

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._core.op import Op
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus.layers._call_state import run_bounded

R = TypeVar("R")


class AttemptTimeout(Layer):
    """Ends one attempt after `seconds` with a transient `DeadlineError`; time in the queue does not count."""

    order = LayerOrder.ATTEMPT_TIMEOUT
    in_transaction = True

    def __init__(self, *, seconds: float = 5.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self._seconds = seconds
        self._clock = clock

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run one attempt."""
        return await run_bounded(op, call_next, self._clock, self._seconds, "attempt_timeout")
