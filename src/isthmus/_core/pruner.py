"""Removes old changes of collections in the background, for as long as a handle uses them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from isthmus.errors import IsthmusError

log = logging.getLogger("isthmus.changes")

MAX_INTERVAL = 60.0
"""Seconds between two prunings of a collection by a handle, at most."""


class Pruner:
    """Prunes the collections of one loop, one at a time and not too often."""

    def __init__(self, prune: Callable[[str], Awaitable[bool]], keep: float) -> None:
        """`prune` removes some changes of a collection and returns whether more are left.

        `keep` is how many seconds changes are kept.
        """
        self._prune = prune
        self._interval = min(MAX_INTERVAL, keep / 10)
        self._due: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def note_use(self, collection: str) -> None:
        """Prune a collection in the background if that is due; no I/O here."""
        now = asyncio.get_running_loop().time()
        if self._task is not None or now < self._due.get(collection, 0.0):
            return
        self._due[collection] = now + self._interval
        self._task = asyncio.create_task(self._run(collection), name="isthmus: prune changes")
        self._task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._task = None

    async def _run(self, collection: str) -> None:
        try:
            while await self._prune(collection):
                pass
        except IsthmusError as error:
            # A store that is away, or a missing right: a later use tries again, and nothing is lost.
            log.info("changes of %r were not pruned: %s", collection, error)

    async def close(self) -> None:
        """Stop pruning; each step is a transaction."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
