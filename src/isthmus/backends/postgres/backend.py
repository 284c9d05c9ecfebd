"""PostgreSQL: one table per collection, one pool per event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
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
from isthmus._core.pruner import Pruner
from isthmus._core.unique import Duplicate, Unique
from isthmus._record import Record
from isthmus.backends.postgres.change_methods import ChangeMethods
from isthmus.backends.postgres.change_pruning import prune
from isthmus.backends.postgres.coalesce import Coalescer
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.cursors import Cursors, PoolSnapshot
from isthmus.backends.postgres.declared_columns import DeclaredColumns
from isthmus.backends.postgres.errors import READING, WRITING, is_stale_plan, is_undefined_table
from isthmus.backends.postgres.executor import Work
from isthmus.backends.postgres.pool import open_pool
from isthmus.backends.postgres.pool.native import TransactionLoan
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.backends.postgres.schema import (
    Declared,
    collections,
    drop_table,
    end_unique,
    ensure_table,
    make_unique,
    table_of,
)
from isthmus.backends.postgres.sorted_streams import SortedStreams
from isthmus.backends.postgres.sql.row_security import row_security_statements
from isthmus.backends.postgres.sql.table import Table
from isthmus.backends.postgres.transaction import PostgresTransaction, TransactionRunner
from isthmus.backends.postgres.unique import duplicates
from isthmus.backends.postgres.unique_write import create_unique
from isthmus.errors import ConfigError, TransactionError, UnsupportedError

R = TypeVar("R")


class _LoopState:
    """Objects of one backend on one event loop, apart from the pool."""

    def __init__(self, pruner: Pruner) -> None:
        self.cursors = Cursors()
        self.sorted = SortedStreams()
        self.pruner = pruner
        self.gets: dict[str, Coalescer[str, Record | None]] = {}
        self.creates: dict[str, Coalescer[Mutation, ItemResult]] = {}


class PoolRunner:
    """Runs work on connections of the running loop's pool."""

    def __init__(self, config: PostgresConfig, tables: dict[str, Table]) -> None:
        self._config = config
        self._tables = tables
        self.pools: LoopBound[Pool] = LoopBound(config.pool_key(), lambda: open_pool(config))
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = (
            weakref.WeakKeyDictionary()
        )
        self.ready: set[str] = set()
        """The collections that were opened and not dropped since, as far as is known."""

    def here(self) -> _LoopState:
        """Return the running loop's objects."""
        loop = asyncio.get_running_loop()
        state = self._loops.get(loop)
        if state is None:
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
        """Create a missing table for an open transaction, which building other indexes would wait for."""
        found = await self.run(
            lambda connection: ensure_table(connection, table, self._config, add_indexes=False), writes=True
        )
        self._note(table, found)

    async def query(self, table: Table | None, work: Work[R], if_missing: R) -> R:
        """Run work that only reads; return `if_missing` if the table was dropped."""
        try:
            return await self.run(work)
        except ConfigError as error:
            if not self._is_dropped(table, error):
                raise
            return if_missing

    async def command(self, table: Table, work: Work[R]) -> R:
        """Run work that writes; if the table was dropped create it again and repeat the work."""
        try:
            return await self.run(work, writes=True)
        except ConfigError as error:
            if not self._is_dropped(table, error):
                raise
        # The statement failed, so nothing was applied to a table that still exists.
        await self.open(table.name)
        return await self.run(work, writes=True)

    async def fetch_consistent(self, table: Table, request: PageRequest) -> Page:
        """Return one page of a snapshot, on a connection that is held until the last page."""
        cursors = self.here().cursors
        try:
            with READING:
                pool = (await self.pools.pool()).reads
                try:
                    return await cursors.fetch(lambda: PoolSnapshot(pool), table, request)
                except Exception as error:  # the driver's classes
                    if request.after is not None or not is_stale_plan(error):
                        raise
                return await cursors.fetch(lambda: PoolSnapshot(pool), table, request)
        except ConfigError as error:
            if not self._is_dropped(table, error):
                raise
            return Page([], None)

    async def fetch_sorted(self, table: Table, request: PageRequest) -> Page | None:
        """Return one page of a sorted stream by a cursor; None with replicas, chosen page by page."""
        pool = await self.pools.pool()
        if pool.reads is not pool:
            return None
        sorted_streams = self.here().sorted
        try:
            with READING:
                try:
                    return await sorted_streams.fetch(pool, table, request)
                except Exception as error:  # the driver's classes
                    if not is_stale_plan(error):
                        raise
                return await sorted_streams.fetch(pool, table, request)  # after the request's position
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
                    await state.cursors.close()
                    state.sorted.give_up()
        finally:
            self._loops.clear()
            await self.pools.close()

    def terminate(self) -> None:
        """Drop the connections of all loops."""
        self._loops.clear()
        self.pools.discard()


class PostgresBackend(ChangeMethods, DeclaredColumns):
    """Records in PostgreSQL."""

    name = "postgres"

    def __init__(self, config: PostgresConfig) -> None:
        tables: dict[str, Table] = {}
        self._pool_runner = PoolRunner(config, tables)
        super().__init__(config, tables, self._pool_runner)
        self.default_collection = config.table
        self._table(config.table)  # reports a wrong name or index before any I/O

    async def open(self, collection: str) -> None:
        """Connect in the running loop, and create the collection's table and indexes if they are missing.

        Raises `ConfigError` for a table that isthmus did not create, or in a newer format.
        """
        await self._pool_runner.open(collection)

    async def close(self) -> None:
        """Release the pools of all loops; open consistent streams end."""
        await self._pool_runner.close()

    def terminate(self) -> None:
        """Drop the connections of all loops without waiting."""
        self._pool_runner.terminate()

    async def find_duplicates(self, collection: str, unique: Unique) -> list[Duplicate]:
        """Return values that several records have, each with some of their ids; 20 values at most."""
        table = self._table(collection)
        return await self._pool_runner.query(
            table, lambda connection: duplicates(connection, table, unique), []
        )

    async def make_unique(self, collection: str, unique: Unique) -> None:
        """Declare fields unique while writers wait; raises `ConfigError` that names the duplicates."""
        table = self._table(collection)
        await self._pool_runner.command(table, lambda connection: make_unique(connection, table, unique))
        self._tables[collection] = replace(table, has_unique=True)

    async def end_unique(self, collection: str, unique: Unique) -> None:
        """End a declaration; a missing one is not an error."""
        table = self._table(collection)
        await self._pool_runner.command(table, lambda connection: end_unique(connection, table, unique))

    async def collections(self) -> list[str]:
        """Return the names of the tables that isthmus created in the schema, sorted."""
        schema = self._config.schema_name
        return await self._pool_runner.run(lambda connection: collections(connection, schema))

    async def drop(self, collection: str) -> None:
        """Drop a collection's table; the next write creates it again."""
        statement = drop_table(self._table(collection))
        self._pool_runner.ready.discard(collection)
        await self._pool_runner.run(lambda connection: connection.execute(statement), writes=True)

    def stats(self) -> PoolStats:
        """Return a snapshot of this loop's pool."""
        pool = self._pool_runner.pools.current()
        return PoolStats() if pool is None else pool.stats()

    async def native(self) -> Pool:
        """Return this loop's pool."""
        return await self._pool_runner.pools.pool()

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids; concurrent single calls share a statement."""
        if len(ids) == 1 and not for_update and self._config.coalesce:
            gets = self._pool_runner.here().gets
            coalescer = gets.get(collection)
            if coalescer is None:
                coalescer = gets[collection] = Coalescer(partial(super().read, collection))
            return [await coalescer(ids[0])]
        return await super().read(collection, ids, for_update=for_update)

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations of one kind; concurrent single creates share a statement."""
        self._pool_runner.prune_soon(collection)
        if kind is WriteKind.CREATE and len(mutations) == 1 and self._config.coalesce:
            creates = self._pool_runner.here().creates
            coalescer = creates.get(collection)
            if coalescer is None:
                coalescer = creates[collection] = Coalescer(partial(self._create_coalesced, collection))
            return [await coalescer(mutations[0])]
        return await super().write(collection, kind, mutations, atomic=atomic)

    async def _create_coalesced(self, collection: str, mutations: Sequence[Mutation]) -> list[ItemResult]:
        table = self._table(collection)
        return await self._runner.command(
            table, lambda connection: create_unique(connection, table, mutations)
        )

    def row_security_statements(self, collection: str) -> list[str]:
        """Return the statements that make a collection's rows visible to the transactions of scopes only."""
        return row_security_statements(self._table(collection))

    @asynccontextmanager
    async def begin(self, options: TransactionOptions) -> AsyncIterator[PostgresTransaction]:
        """Open a transaction: commit on leaving, roll back on an exception.

        Raises `UnsupportedError` for an isolation level other than read committed, repeatable read
        and serializable.
        """
        isolation = _driver_isolation(options.isolation)
        with READING:
            pool = await self._pool_runner.pools.pool()
            connection = await pool.acquire()
        loan = TransactionLoan(pool, connection)
        try:
            transaction = connection.transaction(isolation=isolation, readonly=options.read_only)
            with READING:
                await transaction.start()
            try:
                pools = self._pool_runner
                own = pool.driver.without_codecs(connection)
                for name, value in options.settings:
                    with READING:
                        await own.fetchval("SELECT set_config($1::text, $2::text, true)", name, value)
                runner = TransactionRunner(own, pools.ready, pools.create_table)
                # An exception of the block is its own: only the driver's errors are mapped.
                yield PostgresTransaction(self._config, self._tables, runner, loan.lend)
                await runner.check_commit(lent=loan.is_lent)
            except BaseException:
                # A broken connection has rolled back by itself.
                if not connection.is_closed():
                    await transaction.rollback()
                raise
            with WRITING:
                committed = await pool.driver.commit(connection, transaction)
            if not committed:
                raise TransactionError(
                    "the transaction was rolled back by an earlier failure; nothing was written"
                )
        except BaseException as error:
            pool.note_error(connection, error)
            raise
        finally:
            loan.end()
            pool.release(connection)


def _driver_isolation(name: str | None) -> str | None:
    if name is None:
        return None
    if name not in ("read committed", "repeatable read", "serializable"):
        raise UnsupportedError(f"postgres has no isolation level {name!r}", capability="isolation")
    return name.replace(" ", "_")
