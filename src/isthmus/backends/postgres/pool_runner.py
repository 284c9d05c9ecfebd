"""Runs work on the pools of a backend, one per event loop."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TypeVar

from isthmus._core.executor import (
    ItemResult,
    Mutation,
    Page,
    PageRequest,
)
from isthmus._core.loop_pools import LoopBound, call_on
from isthmus._core.pruner import Pruner
from isthmus._record import Record
from isthmus.backends.postgres.change_pruning import prune
from isthmus.backends.postgres.coalesce import Coalescer
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.cursors import Cursors, PoolSnapshot, RowSource
from isthmus.backends.postgres.errors import READING, WRITING, is_stale_plan, is_undefined_table
from isthmus.backends.postgres.executor import Work
from isthmus.backends.postgres.lookups import Lookups
from isthmus.backends.postgres.pool import open_pool
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.backends.postgres.schema import (
    Declared,
    ensure_table,
    table_of,
)
from isthmus.backends.postgres.sorted_streams import SortedStreams
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import ConfigError

R = TypeVar("R")


class _LoopState:
    """Objects of one backend on one event loop, apart from the pool."""

    def __init__(self, pruner: Pruner) -> None:
        self.cursors = Cursors()
        self.sorted = SortedStreams()
        self.pruner = pruner
        self.creating = asyncio.Lock()
        self.gets: dict[str, Coalescer[str, Record | None]] = {}
        self.creates: dict[str, Coalescer[Mutation, ItemResult]] = {}
        self.lookups: dict[str, Lookups] = {}

    def give_up(self) -> None:
        """Give back the connections that streams hold; other handles may share their pool."""
        self.cursors.give_up()
        self.sorted.give_up()


class PoolRunner:
    """Runs work on connections of the running loop's pool."""

    def __init__(self, config: PostgresConfig, tables: dict[str, Table]) -> None:
        self._config = config
        self._tables = tables
        self.pools: LoopBound[Pool] = LoopBound(config.pool_key(), lambda: open_pool(config))
        # Not by weak references: a stream that is collected together with its handle could not find them.
        self._loops: dict[asyncio.AbstractEventLoop, _LoopState] = {}
        self.ready: set[str] = set()
        """The collections that were opened and not dropped since, as far as is known."""

    def here(self) -> _LoopState:
        """Return the running loop's objects."""
        loop = asyncio.get_running_loop()
        state = self._loops.get(loop)
        if state is None:
            for other in [other for other in self._loops if other.is_closed()]:
                del self._loops[other]
            pruner = Pruner(self._prune, self._config.changes_keep)
            state = self._loops[loop] = _LoopState(pruner)
        return state

    async def run(
        self, work: Work[R], *, writes: bool = False, primary: bool = False, locks: bool = False
    ) -> R:
        """Run work on a connection and return its result; with `writes` or `primary` on the primary.

        `locks`: it takes locks of the session, so the session is closed if it fails or is cancelled.
        """
        with WRITING if writes else READING:
            pool = self.pools.current() or await self.pools.pool()
            if not (writes or primary):
                pool = pool.reads
            # One is idle most of the time: taking it here saves two coroutines.
            connection = pool.take_idle() if pool.direct else None
            if connection is None:
                connection = await pool.acquire()
            try:
                return await work(pool.driver.without_codecs(connection))
            except BaseException as error:
                pool.note_error(connection, error)
                if locks:
                    pool.mark_unusable(connection)
                if not is_stale_plan(error):
                    raise
            finally:
                pool.release(connection)
            # The prepared statements are stale, and nothing was applied. The pool replaces its
            # connections, and a new one prepares the statement again.
            async with pool.acquire() as connection:
                return await work(pool.driver.without_codecs(connection))

    async def open(self, collection: str) -> None:
        """Create a collection's table and indexes if they are missing, and check what exists."""
        table = self._tables.get(collection) or table_of(self._config, collection)
        found = await self.run(
            lambda connection: ensure_table(connection, table, self._config), writes=True, locks=True
        )
        self._note(table, found)
        self.ready.add(collection)

    def _note(self, before: Table, found: Declared) -> None:
        """Keep what a table has, unless a model has declared more meanwhile."""
        table = self._tables.get(before.name, before)
        unique = table.has_unique or bool(found.unique)
        self._tables[before.name] = replace(
            table, columns=found.columns, has_unique=unique, has_changes=found.changes
        )

    async def read_primary(self, work: Work[R]) -> R:
        """Run work that only reads on the primary."""
        return await self.run(work, primary=True)

    def prune_soon(self, collection: str) -> None:
        """Prune a collection's changes in the background, if that is due and the config keeps them."""
        if self._config.changes:
            self.here().pruner.note_use(collection)

    async def _prune(self, collection: str) -> bool:
        table, keep = table_of(self._config, collection), self._config.changes_keep
        return await self.run(lambda connection: prune(connection, table, keep), writes=True)

    async def create_table(self, table: Table) -> None:
        """Create a missing table for an open transaction, which building other indexes would wait for.

        On a connection of its own: transactions that wait for this may hold all those of the pool.
        """
        pool = await self.pools.pool()
        async with self.here().creating:
            with WRITING:
                async with pool.connector.open_apart() as connection:
                    own = pool.driver.without_codecs(connection)
                    found = await ensure_table(own, table, self._config, add_indexes=False)
        self._note(table, found)

    async def query(self, table: Table | None, work: Work[R], if_missing: R) -> R:
        """Run work that only reads; return `if_missing` if the table was dropped."""
        try:
            return await self.run(work)
        except ConfigError as error:
            if not self._is_dropped(table, error):
                raise
            return if_missing

    async def command(self, table: Table | None, work: Work[R]) -> R:
        """Run work that writes; if the table was dropped create it again and repeat the work."""
        try:
            return await self.run(work, writes=True)
        except ConfigError as error:
            if table is None or not self._is_dropped(table, error):
                raise
        # The statement failed, so nothing was applied to a table that still exists.
        await self.open(table.name)
        return await self.run(work, writes=True)

    async def fetch_consistent(self, table: Table | None, source: RowSource, request: PageRequest) -> Page:
        """Return one page of a snapshot, on a connection that is held until the last page."""
        cursors = self.here().cursors
        try:
            with READING:
                pool = (await self.pools.pool()).reads
                try:
                    return await cursors.fetch(lambda: PoolSnapshot(pool), source, request)
                except Exception as error:  # the driver's classes
                    if request.after is not None or not is_stale_plan(error):
                        raise
                return await cursors.fetch(lambda: PoolSnapshot(pool), source, request)
        except ConfigError as error:
            if not self._is_dropped(table, error):
                raise
            return Page([], None)

    async def fetch_sorted(self, table: Table | None, source: RowSource, request: PageRequest) -> Page | None:
        """Return one page of a sorted stream by a cursor; None with replicas, chosen page by page."""
        pool = await self.pools.pool()
        if pool.reads is not pool:
            return None
        sorted_streams = self.here().sorted
        try:
            with READING:
                try:
                    return await sorted_streams.fetch(pool, source, request)
                except Exception as error:  # the driver's classes
                    if not is_stale_plan(error):
                        raise
                return await sorted_streams.fetch(pool, source, request)  # after the request's position
        except ConfigError as error:
            if not self._is_dropped(table, error):
                raise
            return Page([], None)

    def _is_dropped(self, table: Table | None, error: ConfigError) -> bool:
        if table is None or not is_undefined_table(error):
            return False
        self.ready.discard(table.name)
        return True

    async def release(self, token: int) -> None:
        """Roll back a snapshot and release its connection."""
        with READING:
            await self.here().cursors.release(token)
            await self.here().sorted.release(token)

    async def close(self) -> None:
        """Release the snapshots of this loop and the pools of all loops."""
        state = self._loops.pop(asyncio.get_running_loop(), None)
        try:
            with READING:
                if state is not None:
                    await state.pruner.close()
                    state.give_up()
        finally:
            self._give_up_streams()
            await self.pools.close()

    def terminate(self) -> None:
        """Drop the connections of all loops."""
        self._give_up_streams()
        self.pools.discard()

    def _give_up_streams(self) -> None:
        states, self._loops = self._loops, {}
        for loop, state in states.items():
            call_on(loop, state.give_up)
