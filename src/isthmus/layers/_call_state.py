"""State that the layers of one call share: its deadline, and whether it may have been applied."""

from __future__ import annotations

import contextvars
from typing import TypeVar

from isthmus._core.clock import Clock
from isthmus._core.op import Op, Write
from isthmus._core.stack import Next
from isthmus.errors import Applied, DeadlineError

R = TypeVar("R")


class CallState:
    """The state of one call that its layers share."""

    __slots__ = ("earlier", "sent", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        """The clock's time at which its deadline ends."""
        self.sent = True
        """Whether an attempt was sent, or an earlier one may have been applied."""
        self.earlier = False
        """Whether an earlier attempt may have been applied."""


NO_CALL = CallState(float("inf"))
"""Stands for a call without a deadline; never changed."""
CALL: contextvars.ContextVar[CallState] = contextvars.ContextVar("isthmus-call", default=NO_CALL)


async def run_bounded(
    op: Op[R], call_next: Next, clock: Clock, seconds: float, limit: str, call: CallState = NO_CALL
) -> R:
    """Run an operation for at most `seconds`; raises `DeadlineError` that names the limit.

    An interrupted write may have been applied (`applied=MAYBE`), unless the call was still queueing.
    """
    timer = clock.timeout(seconds)
    try:
        async with timer as running:
            return await call_next(op)
    except TimeoutError:
        # Our own errors, and those of users' code, are TimeoutErrors too.
        if not running.expired():
            raise
    # delete_where is many operations: while one queues, others have been applied.
    maybe = op.writes and (call.sent or not isinstance(op, Write))
    raise DeadlineError(
        f"{op.name} on {op.collection!r} timed out after {seconds:g} s ({limit})",
        applied=Applied.MAYBE if maybe else Applied.NO,
    )
