"""PostgreSQL: one table per collection, one pool per event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from isthmus._core.executor import (
    ItemResult,
    Mutation,
    Page,
    PageRequest,
    PoolStats,
    TransactionOptions,
    WriteKind,
)
from isthmus._core.loop_pools import LoopBound
from isthmus._index_annotation import Declarations
from isthmus._record import Record
from isthmus.backends.postgres.coalesce import Merged
from isthmus.backends.postgres.config import Indexes, PostgresConfig
from isthmus.backends.postgres.cursors import LARGEST_PAGE, Snapshots
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import READING, WRITING
from isthmus.backends.postgres.executor import PostgresExecutor
from isthmus.backends.postgres.failures import tells_stale_plan
from isthmus.backends.postgres.indexes import declared
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.backends.postgres.read import by_id
from isthmus.backends.postgres.schema import collections, dropped, prepare
from isthmus.backends.postgres.sql.table import Table
from isthmus.backends.postgres.transaction import PostgresTransaction
from isthmus.backends.postgres.write import insert_merged
from isthmus.errors import UnsupportedError

R = TypeVar("R")


class _OnLoop:
    """What one backend has on one event loop beside the pool."""

    def __init__(self) -> None:
        self.snapshots = Snapshots()
        self.gets: dict[str, Merged[str, Record | None]] = {}
        self.creates: dict[str, Merged[Mutation, ItemResult]] = {}


class PostgresBackend(PostgresExecutor):
    """Records in PostgreSQL."""

    name = "postgres"

    def __init__(self, config: PostgresConfig) -> None:
        super().__init__(config, {})
        self.default_collection = config.table
        self._table(config.table)  # a wrong name or index is found before any I/O
        self._pools: LoopBound[Pool] = LoopBound(config.pool_key(), lambda: Pool.open(config))
        self._on_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _OnLoop] = (
            weakref.WeakKeyDictionary()
        )

    # Connections

    def _here(self) -> _OnLoop:
        loop = asyncio.get_running_loop()
        mine = self._on_loop.get(loop)
        if mine is None:
            mine = self._on_loop[loop] = _OnLoop()
        return mine

    async def _run(self, work: Callable[[Connection], Awaitable[R]], *, writes: bool = False) -> R:
        with WRITING if writes else READING:
            pool = self._pools.current() or await self._pools.pool()
            if not writes:
                pool = pool.reads
            # Most often one is idle: taken and given back here, it costs two coroutines less.
            connection = pool.pop() if pool.plain else None
            if connection is None:
                connection = await pool.acquire()
            try:
                return await work(connection)
            except BaseException as error:
                pool.note(connection, error)
                if not tells_stale_plan(error):
                    raise
            finally:
                pool.release(connection)
            # A table changed under prepared statements; nothing was done. The pool has put those
            # connections aside, and a new one prepares anew.
            async with pool.acquire() as connection:
                return await work(connection)

    # Life

    async def open(self, collection: str) -> None:
        """Connect in the running loop, and make the collection's table and indexes if they are missing."""
        table = self._table(collection)
        await self._run(lambda connection: prepare(connection, table, self._config), writes=True)

    async def close(self) -> None:
        """Give back the pools of all loops; open streams end."""
        mine = self._on_loop.pop(asyncio.get_running_loop(), None)
        try:
            with READING:
                if mine is not None:
                    await mine.snapshots.close()
        finally:
            self._on_loop.clear()
            await self._pools.close()

    def declare(self, collection: str, indexes: Declarations) -> bool:
        """Take note of a model's indexes, to be made at the next opening; return whether any is new."""
        table = self._table(collection)
        both = table.declared | declared(Indexes.model_validate(dict(indexes)))
        self._tables[collection] = Table(table.schema, table.name, both)
        return both != table.declared

    async def collections(self) -> list[str]:
        """Return the names of the tables that isthmus made in the schema, sorted."""
        return await self._run(lambda connection: collections(connection, self._config.schema_name))

    async def drop(self, collection: str) -> None:
        """Drop a collection's table."""
        table = self._table(collection)
        await self._run(lambda connection: connection.execute(dropped(table)), writes=True)

    def stats(self) -> PoolStats:
        """Return a snapshot of this loop's pool."""
        pool = self._pools.current()
        return PoolStats() if pool is None else pool.stats()

    async def native(self) -> Pool:
        """Return this loop's pool."""
        return await self._pools.pool()

    # Verbs

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids; single calls that come together are one statement."""
        if len(ids) == 1 and not for_update and self._config.merge:
            merged = self._here().gets.get(collection) or self._merged_gets(collection)
            return [await merged(ids[0])]
        return await super().read(collection, ids, for_update=for_update)

    def _merged_gets(self, collection: str) -> Merged[str, Record | None]:
        table = self._table(collection)

        def run(ids: Sequence[str]) -> Awaitable[Sequence[Record | None]]:
            return self._run(lambda connection: by_id(connection, table, ids))

        merged = self._here().gets[collection] = Merged(run)
        return merged

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply changes of one kind; single creates that come together are one statement."""
        if kind is WriteKind.CREATE and len(mutations) == 1 and self._config.merge:
            merged = self._here().creates.get(collection) or self._merged_creates(collection)
            return [await merged(mutations[0])]
        return await super().write(collection, kind, mutations, atomic=atomic)

    def _merged_creates(self, collection: str) -> Merged[Mutation, ItemResult]:
        table = self._table(collection)

        def run(mutations: Sequence[Mutation]) -> Awaitable[Sequence[ItemResult]]:
            return self._run(lambda connection: insert_merged(connection, table, mutations), writes=True)

        merged = self._here().creates[collection] = Merged(run)
        return merged

    async def _consistent(self, table: Table, request: PageRequest) -> Page:
        snapshots = self._here().snapshots
        with READING:
            if request.after is not None:
                return await snapshots.more(request.after.token, request.size_up_to(LARGEST_PAGE))
            return await snapshots.first((await self._pools.pool()).reads, table, request)

    async def _release(self, token: int) -> None:
        with READING:
            await self._here().snapshots.release(token)

    @asynccontextmanager
    async def begin(self, options: TransactionOptions) -> AsyncIterator[PostgresTransaction]:
        """Open a transaction: commit on leaving, roll back on an exception."""
        isolation = _isolation(options.isolation)
        with READING:
            pool = await self._pools.pool()
            connection = await pool.acquire()
        try:
            transaction = connection.transaction(isolation=isolation, readonly=options.read_only)
            with READING:
                await transaction.start()
            try:
                # An exception of the block is its own: only what the driver says is translated.
                yield PostgresTransaction(self._config, self._tables, connection)
            except BaseException:
                # A broken connection has rolled back by itself.
                if not connection.is_closed():
                    await transaction.rollback()
                raise
            with WRITING:
                await transaction.commit()
        except BaseException as error:
            pool.note(connection, error)
            raise
        finally:
            pool.release(connection)


def _isolation(name: str | None) -> str | None:
    if name is None:
        return None
    if name not in ("read committed", "repeatable read", "serializable"):
        raise UnsupportedError(f"postgres has no isolation level {name!r}", capability="isolation")
    return name.replace(" ", "_")
