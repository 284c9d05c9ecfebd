"""Time as an injected value, so that tests need no sleep."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Protocol

REPEAT_SECONDS = 30.0
"""How long work that lost a race is repeated where no deadline is configured."""


class Timer(Protocol):
    """The state of a timeout after its block was left."""

    def expired(self) -> bool:
        """Return whether the block was ended by the timeout."""
        ...


class Clock(Protocol):
    """A source of monotonic seconds, of pauses and of timeouts."""

    def now(self) -> float:
        """Return seconds from an arbitrary start; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Pause the calling task."""
        ...

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[Timer]:
        """Return a context manager that ends its block after `seconds`, like `asyncio.timeout`."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Pause by `asyncio.sleep`."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[Timer]:
        """Return `asyncio.timeout(seconds)`."""
        return asyncio.timeout(seconds)


SYSTEM_CLOCK = SystemClock()
