"""PostgreSQL: one table per collection, one pool per event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from isthmus._core.executor import (
    ItemResult,
    Mutation,
    PoolStats,
    TransactionExecutor,
    TransactionOptions,
    WriteKind,
)
from isthmus._core.unique import Duplicate, Unique
from isthmus._record import Record
from isthmus.backends.postgres.change_methods import ChangeMethods
from isthmus.backends.postgres.coalesce import Coalescer
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.declared_columns import DeclaredColumns
from isthmus.backends.postgres.errors import READING, WRITING
from isthmus.backends.postgres.executor import PostgresExecutor
from isthmus.backends.postgres.lookups import Lookups
from isthmus.backends.postgres.pool.native import TransactionLoan
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.backends.postgres.pool_runner import PoolRunner
from isthmus.backends.postgres.schema import (
    collections,
    drop_table,
    end_unique,
    make_unique,
)
from isthmus.backends.postgres.sql.row_security import row_security_statements
from isthmus.backends.postgres.sql.statement import Statement
from isthmus.backends.postgres.sql.table import Table
from isthmus.backends.postgres.transaction import PostgresTransaction, TransactionRunner
from isthmus.backends.postgres.unique import duplicates
from isthmus.backends.postgres.unique_write import create_unique
from isthmus.errors import TransactionError, UnsupportedError

R = TypeVar("R")


class PooledBackend:
    """A backend over the pools of a runner, whatever its tables are."""

    name = "postgres"

    def __init__(self, config: PostgresConfig, pool_runner: PoolRunner) -> None:
        self._config = config
        self._pool_runner = pool_runner
        self.default_collection = config.table

    def _transaction(self, runner: TransactionRunner, lend: Callable[[], Any]) -> TransactionExecutor:
        raise NotImplementedError

    async def close(self) -> None:
        """Release the pools of all loops; open consistent streams end."""
        await self._pool_runner.close()

    def terminate(self) -> None:
        """Drop the connections of all loops without waiting."""
        self._pool_runner.terminate()

    def stats(self) -> PoolStats:
        """Return a snapshot of this loop's pool."""
        pool = self._pool_runner.pools.current()
        return PoolStats() if pool is None else pool.stats()

    async def native(self) -> Pool:
        """Return this loop's pool."""
        return await self._pool_runner.pools.pool()

    @asynccontextmanager
    async def begin(self, options: TransactionOptions) -> AsyncIterator[TransactionExecutor]:
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
                yield self._transaction(runner, loan.lend)
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


class PostgresBackend(PooledBackend, ChangeMethods, DeclaredColumns):
    """Records in PostgreSQL."""

    def __init__(self, config: PostgresConfig) -> None:
        tables: dict[str, Table] = {}
        PooledBackend.__init__(self, config, PoolRunner(config, tables))
        PostgresExecutor.__init__(self, config, tables, self._pool_runner)
        self._table(config.table)  # reports a wrong name or index before any I/O

    async def open(self, collection: str) -> None:
        """Connect in the running loop, and create the collection's table and indexes if they are missing.

        Raises `ConfigError` for a table that isthmus did not create, or in a newer format.
        """
        await self._pool_runner.open(collection)

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

    async def _fetch_small(self, table: Table, statement: Statement) -> list[Any]:
        if not self._config.coalesce:
            return await self._fetch_rows(table, *statement)
        lookups = self._pool_runner.here().lookups
        own = lookups.get(table.name)
        if own is None or own.table is not table:
            own = lookups[table.name] = Lookups(table, partial(self._fetch_rows, table))
        return await own.fetch(statement)

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

    def _transaction(self, runner: TransactionRunner, lend: Callable[[], Any]) -> TransactionExecutor:
        return PostgresTransaction(self._config, self._tables, runner, lend)

    def row_security_statements(self, collection: str) -> list[str]:
        """Return the statements that make a collection's rows visible to the transactions of scopes only."""
        return row_security_statements(self._table(collection))


def _driver_isolation(name: str | None) -> str | None:
    if name is None:
        return None
    if name not in ("read committed", "repeatable read", "serializable"):
        raise UnsupportedError(f"postgres has no isolation level {name!r}", capability="isolation")
    return name.replace(" ", "_")
