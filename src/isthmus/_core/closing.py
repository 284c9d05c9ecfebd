"""Closing within a time: what has not ended by then is dropped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from isthmus._core.executor import (
    Backend,
)
from isthmus._core.supports import SupportsTerminate
from isthmus._core.uncancelled import Ends

log = logging.getLogger("isthmus")

CLOSE_SECONDS = 60.0
"""How long `close` waits where neither it nor the config names a time."""
_AFTER_DROPPING = 1.0

CLOSINGS = Ends()
"""The closing of handles; not among the handle's own ends, for which it waits."""


class _Counts(dict[asyncio.AbstractEventLoop, int]):
    """Counts by loop, which begin with 0; those of closed loops are dropped when there is a new one."""

    def __missing__(self, loop: asyncio.AbstractEventLoop) -> int:
        for other in [other for other in list(self) if other.is_closed()]:
            del self[other]
        return 0


class Calls:
    """The calls under way of a handle and of those derived from it."""

    def __init__(self) -> None:
        # By loop: a count that threads share would lose updates. Zeros stay, to save a call for each call.
        self.counts = _Counts()
        self.are_last = False
        """Whether the handle was closed or terminated, so that no more calls begin."""
        self.closings = 0
        """How often the handle was closed or terminated."""
        self._drained: dict[asyncio.AbstractEventLoop, asyncio.Event] = {}

    def begin(self) -> None:
        """Let calls begin (again)."""
        self.are_last = False

    def end(self) -> None:
        """Let those under way be the last."""
        self.are_last = True
        self.closings += 1

    @property
    def are_awaited(self) -> bool:
        """Return whether `drain` waits for the calls of the running loop."""
        return asyncio.get_running_loop() in self._drained

    def end_last(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether the last call on a loop has ended, and nobody waits for that."""
        if self.counts[loop] > 0:
            return False
        drained = self._drained.get(loop)
        if drained is not None:
            drained.set()
        return drained is None

    async def drain(self) -> None:
        """Wait for the calls of the running loop."""
        loop = asyncio.get_running_loop()
        if self.counts[loop] == 0:
            return
        drained = self._drained.setdefault(loop, asyncio.Event())
        try:
            await drained.wait()
        finally:
            self._drained.pop(loop, None)


async def close_within(seconds: float, work: Coroutine[Any, Any, None], backend: Backend) -> None:
    """Run the closing of a backend; if it takes longer, log a warning and drop the connections.

    A cancelled caller leaves at once; the closing goes on in the background.
    """
    in_use = backend.stats().in_use
    task = CLOSINGS.start(work, "isthmus-close")
    await asyncio.wait((task,), timeout=seconds)
    if not task.done():
        log.warning(
            "%s: not closed within %g s, dropping what is in use (connections: %d)",
            backend.name,
            seconds,
            in_use,
        )
        if isinstance(backend, SupportsTerminate):
            backend.terminate()
            await asyncio.wait((task,), timeout=_AFTER_DROPPING)
    if not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=_AFTER_DROPPING)
    if task.done() and not task.cancelled():
        task.result()
