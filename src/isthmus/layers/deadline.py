"""Bounds a whole call: planning, queueing, every attempt and the pauses between them."""

from __future__ import annotations

from typing import TypeVar

from isthmus._clock import SYSTEM_CLOCK, Clock
from isthmus._op import Op
from isthmus._stack import Layer, Next, Slot
from isthmus.layers._time_left import CALL, Call, bounded

R = TypeVar("R")


class Deadline(Layer):
    """Ends a call after some seconds by `DeadlineError`; each page of a stream is a call.

    Inner layers know the end: a retry is not begun when its pause would outlast it, so that the
    error is the store's and not the deadline's.
    """

    slot = Slot.DEADLINE
    in_transaction = True

    def __init__(self, *, seconds: float = 10.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self._seconds = seconds
        self._clock = clock

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation within the deadline."""
        call = Call(self._clock.now() + self._seconds)
        token = CALL.set(call)
        try:
            return await bounded(op, call_next, self._clock, self._seconds, "deadline", call)
        finally:
            CALL.reset(token)
