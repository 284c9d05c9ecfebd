"""Work that must run to its end, whatever happens to the task that began it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# The loop itself holds tasks only weakly.
_running: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, set[asyncio.Task[Any]]] = (
    weakref.WeakKeyDictionary()
)


async def run_to_end(work: Coroutine[Any, Any, T], name: str = "isthmus-end") -> T:
    """Run a coroutine in a task of its own and return its result.

    If the caller is cancelled, once or many times, by asyncio or by a cancel scope of anyio, it
    leaves at once with `CancelledError` while the work goes on; `drain` waits for it.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name=name)
    tasks = _running.setdefault(loop, set())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # Nobody will ask for the outcome any more, and asyncio would warn of an error in it.
        task.add_done_callback(_retrieve)
        raise


async def drain() -> None:
    """Wait for all work of this loop that its callers have left; used before a pool is closed."""
    while tasks := [task for task in _running.get(asyncio.get_running_loop(), ()) if not task.done()]:
        current = asyncio.current_task()
        others = [task for task in tasks if task is not current]
        if not others:
            return
        await asyncio.wait(others)


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
