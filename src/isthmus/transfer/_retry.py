"""Retries of transient failures; safe for any call of a transfer, which only reads, upserts and deletes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from isthmus import IsthmusError
from isthmus._core.clock import Clock

R = TypeVar("R")
ATTEMPTS = 6


async def retry_transient(call: Callable[[], Awaitable[R]], clock: Clock) -> R:
    """Return the result of `call`, repeating it up to `ATTEMPTS` times after transient errors.

    Waits between attempts for as long as the store asked (`retry_after`), else with exponential
    backoff. Raises the error of the last attempt, and any other error at once.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return await call()
        except IsthmusError as error:
            if not error.transient:
                raise
            wait = error.retry_after
        await clock.sleep(backoff(attempt) if wait is None else wait)
    return await call()


def backoff(attempt: int) -> float:
    """Return the seconds to wait after the failed attempt `attempt`, counted from 0: 0.2, 0.4 … 5."""
    return float(min(0.2 * 2**attempt, 5.0))
