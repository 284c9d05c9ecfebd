"""The methods of a backend by which the changes of its collections are read."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from isthmus._core.changes import ChangePage, Position, StoredChange
from isthmus._core.pruner import Pruner
from isthmus.backends.sqlite.change_tables import add_changes, drop_changes, find_changes
from isthmus.backends.sqlite.changes import current_position, prune, read_changes, read_records
from isthmus.backends.sqlite.config import SQLiteConfig
from isthmus.backends.sqlite.displaced import note_displaced
from isthmus.backends.sqlite.executor import Work
from isthmus.backends.sqlite.pool import Pool
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.session import SQLiteSession

T = TypeVar("T")


class ChangeMethods(abc.ABC):
    """The methods of `SupportsChanges`."""

    _config: SQLiteConfig

    @abc.abstractmethod
    async def _pool(self) -> Pool: ...

    @abc.abstractmethod
    async def _table(self, pool: Pool, collection: str) -> Table: ...

    @abc.abstractmethod
    async def _run_write(self, collection: str, work: Work[T], *, undo: bool) -> T: ...

    async def changes_position(self, collection: str) -> Position:
        """Return the position of now."""
        pool = await self._pool()
        while True:
            await self._table(pool, collection)
            found = await self._snapshot(lambda session: current_position(session, collection))
            if found is not None:
                return found
            pool.tables.pop(collection, None)  # it was dropped by any handle or process

    async def read_changes(self, collection: str, position: Position, limit: int) -> ChangePage:
        """Return at most `limit` changes after a position; one snapshot."""
        page = await self._snapshot(lambda session: read_changes(session, collection, position, limit))
        await self._prune_soon(collection)
        return page

    async def read_records(
        self, collection: str, position: Position, limit: int
    ) -> tuple[list[StoredChange], bool]:
        """Return records after an id, by id, and whether there are more; one snapshot."""
        return await self._snapshot(lambda session: read_records(session, collection, position, limit))

    async def _snapshot(self, work: Callable[[SQLiteSession], T]) -> T:
        pool = await self._pool()
        return await pool.readers.run(lambda session: session.read_snapshot(work))

    async def wait_for_changes(self, collection: str, position: Position, seconds: float) -> None:
        """Sleep: nothing wakes a reader of a file."""
        await asyncio.sleep(seconds)

    async def make_changes(self, collection: str) -> None:
        """Keep the changes of a collection from now on, while writers wait."""

        def make(session: SQLiteSession, table: Table) -> None:
            if find_changes(session.connection, collection) is None:
                add_changes(session.connection, collection)
                note_displaced(session.connection, collection)

        await self._run_write(collection, make, undo=True)
        (await self._pool()).tables.pop(collection, None)

    async def end_changes(self, collection: str) -> None:
        """Remove the changes of a collection, and what keeps them."""

        def end(session: SQLiteSession, table: Table) -> None:
            drop_changes(session.connection, collection, keep_table=True)

        await self._run_write(collection, end, undo=True)
        (await self._pool()).tables.pop(collection, None)

    async def _prune_soon(self, collection: str) -> None:
        """Prune a collection's changes in the background, if that is due and the config keeps them."""
        if self._config.changes:
            pool, keep = await self._pool(), self._config.changes_keep
            pruner = pool.pruners.get(keep)
            if pruner is None:
                pruner = pool.pruners[keep] = Pruner(partial(_prune, pool, keep), keep)
            pruner.note_use(collection)


async def _prune(pool: Pool, keep: float, collection: str) -> bool:
    return await pool.writer.run(lambda session: session.write(lambda s: prune(s, collection, keep)))
