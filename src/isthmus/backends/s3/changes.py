"""The changes of collections in layout `log` (meaning §10)."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from isthmus._core.changes import ChangePage, Position, StoredChange, no_changes
from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.layout import Layout
from isthmus.backends.s3.log.follow import current_position, read_changes, read_records
from isthmus.backends.s3.log.layout import LogLayout


class LogChanges:
    """What `SupportsChanges` asks of a backend, for the one that a subclass is."""

    config: S3Config

    @abstractmethod
    async def _layout(self, collection: str, *, writes: bool = False) -> tuple[Layout, str]:
        """Return the layout and the prefix of a collection whose marker was checked."""

    @abstractmethod
    async def _mark_declared(self, prefix: str) -> None:
        """Give a collection's marker the format of one with declarations."""

    async def _changes_log(self, collection: str, *, writes: bool = False) -> tuple[LogLayout, str]:
        layout, prefix = await self._layout(collection, writes=writes)
        if not isinstance(layout, LogLayout):
            raise no_changes("s3: layout 'object'")
        return layout, prefix

    async def changes_position(self, collection: str) -> Position:
        """Return the position after the last entry. Costs a GET."""
        layout, prefix = await self._changes_log(collection)
        return await current_position(layout.committer(prefix).log, collection)

    async def read_changes(self, collection: str, position: Position, limit: int) -> ChangePage:
        """Return changes after a position; see `follow.read_changes` for the cost."""
        layout, prefix = await self._changes_log(collection)
        return await read_changes(layout.committer(prefix).log, collection, position, limit)

    async def read_records(
        self, collection: str, position: Position, limit: int
    ) -> tuple[list[StoredChange], bool]:
        """Return records after an id in the order of ids, and whether there are more."""
        layout, prefix = await self._changes_log(collection)
        return await read_records(layout.committer(prefix).log, collection, position, limit)

    async def wait_for_changes(self, collection: str, position: Position, seconds: float) -> None:
        """Sleep: the server wakes nobody."""
        await asyncio.sleep(seconds)

    async def _open_changes(self, collection: str) -> None:
        """Let a collection without records keep changes, as the config says."""
        layout, prefix = await self._changes_log(collection, writes=True)
        keep = self.config.changes_keep
        await layout.keep_changes_when_empty(prefix, collection, keep, lambda: self._mark_declared(prefix))

    async def make_changes(self, collection: str) -> None:
        """Let a collection keep its changes from now on, for `changes_keep` of this config."""
        layout, prefix = await self._changes_log(collection, writes=True)
        await layout.keep_changes(prefix, self.config.changes_keep, lambda: self._mark_declared(prefix))

    async def end_changes(self, collection: str) -> None:
        """Let a collection keep no changes; its entries go with the next checkpoints."""
        layout, prefix = await self._changes_log(collection, writes=True)
        await layout.end_changes(prefix)

    async def compact(self, collection: str) -> tuple[bool, int]:
        """Write a checkpoint of a log, and remove what was replaced and is not kept for changes.

        Return whether one was written, and how many objects were removed.
        """
        layout, prefix = await self._changes_log(collection, writes=True)
        return await layout.compact(prefix)
