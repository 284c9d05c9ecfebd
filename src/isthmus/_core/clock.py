"""Time as a value that one passes in, so that tests need no sleep."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Timer(Protocol):
    """What a timeout tells after it was left."""

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
        """Return a block that is ended after some seconds by `TimeoutError`, as `asyncio.timeout` does."""
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
