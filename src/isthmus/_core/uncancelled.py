"""Work that must run to its end, whatever happens to the task that began it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger("isthmus")


class Ends:
    """The ends of what one handle or one pool has opened: they go on when their callers are cancelled."""

    def __init__(self) -> None:
        # A loop holds its tasks only weakly.
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task for a coroutine, and keep it until it is done."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def finish(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Start a task for whose outcome nobody will ask."""
        self.start(work, name).add_done_callback(_note_failure)

    async def run(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Run a coroutine in a task of its own and return its result.

        If the caller is cancelled, once or many times, by asyncio or by a cancel scope of anyio, it
        leaves at once with `CancelledError` while the work goes on; `drain` waits for it.
        """
        task = self.start(work, name)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_note_failure)
            raise

    async def open(
        self, work: Coroutine[Any, Any, T], close: Callable[[T], Coroutine[Any, Any, None]], name: str
    ) -> T:
        """Open something and return it; if the caller is cancelled, `close` it once it is open."""
        task = self.start(work, name)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:

            def close_opened(task: asyncio.Task[T]) -> None:
                if not task.cancelled() and task.exception() is None:
                    self.finish(close(task.result()), name)

            if task.done():
                close_opened(task)
            else:
                task.add_done_callback(close_opened)
            raise

    async def drain(self) -> None:
        """Wait for all work on the running loop that its callers have left, but for the caller itself."""
        loop, own = asyncio.get_running_loop(), asyncio.current_task()
        while tasks := [
            task for task in self._tasks if task is not own and task.get_loop() is loop and not task.done()
        ]:
            await asyncio.wait(tasks)


def _note_failure(task: asyncio.Task[Any]) -> None:
    """Log the error of a task whose caller has left; asyncio would report it as never retrieved."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("%s failed after its caller was cancelled: %r", task.get_name(), error)
