"""What the running call may still take, and whether it may have been done: shared by layers of one call."""

from __future__ import annotations

import contextvars
from typing import TypeVar

from isthmus._core.clock import Clock
from isthmus._core.op import Op, Write
from isthmus._core.stack import Next
from isthmus.errors import Applied, DeadlineError

R = TypeVar("R")


class Call:
    """The state of one call that its layers share."""

    __slots__ = ("earlier", "sent", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        """The clock's time at which its deadline ends."""
        self.sent = True
        """Whether an attempt is on its way now, or an earlier one may have been done."""
        self.earlier = False
        """Whether an earlier attempt may have been done."""


NO_CALL = Call(float("inf"))
"""Stands for a call without a deadline; never changed."""
CALL: contextvars.ContextVar[Call] = contextvars.ContextVar("isthmus-call", default=NO_CALL)


async def bounded(
    op: Op[R], call_next: Next, clock: Clock, seconds: float, limit: str, call: Call = NO_CALL
) -> R:
    """Run an operation for at most some seconds; raises `DeadlineError` that names the limit.

    A write that was interrupted may have been done, unless the call says that it was still
    queueing: its error says `applied=MAYBE`.
    """
    timer = clock.timeout(seconds)
    try:
        async with timer as running:
            return await call_next(op)
    except TimeoutError:
        # Errors of ours, and of users' code, are TimeoutErrors too.
        if not running.expired():
            raise
    # delete_where is many operations: while one queues, others were done.
    maybe = op.writes and (call.sent or not isinstance(op, Write))
    raise DeadlineError(
        f"{op.name} on {op.collection!r} did not end within {seconds:g} s ({limit})",
        applied=Applied.MAYBE if maybe else Applied.NO,
    )
