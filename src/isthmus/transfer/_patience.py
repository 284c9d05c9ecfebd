"""Repeats what failed for a passing reason; a transfer only reads and upserts, so it may."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from isthmus import IsthmusError
from isthmus._core.clock import Clock

R = TypeVar("R")
ATTEMPTS = 6


async def patient(call: Callable[[], Awaitable[R]], clock: Clock, *, attempts: int = ATTEMPTS) -> R:
    """Return the call's answer, trying again with growing pauses on a transient error."""
    for attempt in range(attempts - 1):
        try:
            return await call()
        except IsthmusError as error:
            if not error.transient:
                raise
            wait = error.retry_after
        await clock.sleep(pause(attempt) if wait is None else wait)
    return await call()


def pause(attempt: int) -> float:
    """Return the seconds to wait after a failed attempt: 0.2, 0.4 … 5."""
    return float(min(0.2 * 2**attempt, 5.0))
