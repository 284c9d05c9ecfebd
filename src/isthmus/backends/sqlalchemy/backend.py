"""The SQLAlchemy backend: a table for each collection, a prefilter at the store, the rest in the core."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from isthmus._core.executor import ItemResult, Mutation, PoolStats, TransactionOptions, WriteKind
from isthmus._core.loop_pools import LoopBound, secret_digest
from isthmus.backends.sqlalchemy.config import SQLAlchemyConfig
from isthmus.backends.sqlalchemy.engine import (
    EnginePool,
    begin_write,
    dialect_of,
    lock_wait_of,
    open_engine,
)
from isthmus.backends.sqlalchemy.errors import MissingTableError, translate_errors
from isthmus.backends.sqlalchemy.executor import SQLAlchemyExecutor, SQLAlchemyTransaction
from isthmus.backends.sqlalchemy.schema import collection_names, columns_of
from isthmus.backends.sqlalchemy.support import CAPABILITIES, SQLITE_CAPABILITIES
from isthmus.errors import ConfigError, SerializationError
from sqlalchemy import text

_ATTEMPTS = 5


class SQLAlchemyBackend(SQLAlchemyExecutor):
    """A database behind SQLAlchemy."""

    name = "sqlalchemy"

    def __init__(self, config: SQLAlchemyConfig) -> None:
        self._dialect_name = dialect_of(config)
        super().__init__({}, SQLITE_CAPABILITIES if self._dialect_name == "sqlite" else CAPABILITIES)
        self._config = config
        self.default_collection = config.table
        address = None if config.address is None else config.address.get_secret_value()
        key = ("sqlalchemy", secret_digest(address), id(config.engine), config.pool, lock_wait_of(config))
        self._pools = LoopBound(key, self._open_pool)
        self._ready: set[str] = set()

    async def _open_pool(self) -> EnginePool:
        return open_engine(self._config)

    @contextlib.asynccontextmanager
    async def _connection(self, collection: str, *, writes: bool = False) -> AsyncIterator[AsyncConnection]:
        engine = (await self._pools.pool()).engine
        with translate_errors("at the store"):
            async with engine.connect() as connection:
                if writes:
                    await begin_write(connection)
                yield connection
                if writes:
                    with translate_errors("while committing", commits=True):
                        await connection.commit()

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations of one kind in one transaction; return one result for each.

        Runs again, up to five times, if the server chose it as a deadlock's victim, or if the table
        was dropped, which is then created again.
        """
        for attempt in itertools.count(1):
            try:
                return await super().write(collection, kind, mutations, atomic=atomic)
            except (SerializationError, MissingTableError) as error:
                if attempt == _ATTEMPTS:
                    raise
                dropped = isinstance(error, MissingTableError)
            await (self.open(collection) if dropped else asyncio.sleep(0.005 * 2**attempt))
        raise AssertionError  # the loop above has no end

    async def open(self, collection: str) -> None:
        """Connect, and create the table if it is missing.

        Raises `ConfigError` for a table of other columns, and for a missing one if `create_table` is false.
        """
        async with self._connection(collection, writes=True) as connection:
            await self._create_table(collection, connection)
        self._ready.add(collection)

    async def ping(self) -> None:
        """Run SELECT 1."""
        async with self._connection(self.default_collection) as connection:
            await connection.execute(text("SELECT 1"))

    async def make_ready(self, collection: str, held: AsyncConnection, *, dropped: bool = False) -> None:
        """Open a collection that is first used inside a transaction, or was `dropped`."""
        if collection in self._ready and not dropped:
            return
        if self._dialect_name == "sqlite":  # the only writer is this transaction
            with translate_errors("opening"):
                await self._create_table(collection, held)
        else:  # MySQL and MariaDB commit the open transaction when a table is created
            await self.open(collection)

    async def _create_table(self, collection: str, connection: AsyncConnection) -> None:
        source = self._table(collection)
        for _ in range(_ATTEMPTS):
            columns = await connection.run_sync(columns_of, collection)
            if columns is not None:
                break
            if not self._config.create_table:
                raise ConfigError(f"sqlalchemy: there is no table {collection!r}, and create_table is false")
            try:
                async with connection.begin_nested():
                    await connection.run_sync(functools.partial(source.create, checkfirst=True))
            except (ProgrammingError, OperationalError, IntegrityError):
                # Another process created it after the check; otherwise it is a real failure.
                if await connection.run_sync(columns_of, collection) is None:
                    raise
        if columns is not None and columns != {column.name for column in source.columns}:
            raise ConfigError(
                f"sqlalchemy: the table {collection!r} is not ours: its columns are {sorted(columns)}"
            )

    async def _dialect(self) -> Any:
        return (await self._pools.pool()).engine.dialect

    async def close(self) -> None:
        """Release the engine; the last handle disposes of it."""
        await self._pools.close()

    def terminate(self) -> None:
        """Drop the connections of all loops without waiting."""
        self._pools.discard()

    async def collections(self) -> list[str]:
        """Return the names of the tables that have our columns, sorted."""
        async with self._connection(self.default_collection) as connection:
            return await connection.run_sync(collection_names)

    async def drop(self, collection: str) -> None:
        """Drop the table; a missing one is not an error.

        Handles in any process then read an empty collection, and create the table at their next write.
        """
        async with self._connection(collection, writes=True) as connection:
            await connection.run_sync(functools.partial(self._table(collection).drop, checkfirst=True))

    @contextlib.asynccontextmanager
    async def begin(self, options: TransactionOptions) -> AsyncIterator[SQLAlchemyTransaction]:
        """Open a transaction on a connection of its own: commit on leaving, roll back on an exception."""
        engine = (await self._pools.pool()).engine
        async with contextlib.AsyncExitStack() as stack:
            with translate_errors("opening a transaction"):
                connection = await stack.enter_async_context(engine.connect())
                if options.isolation is not None:
                    await connection.execution_options(isolation_level=options.isolation.upper())
                if not options.read_only:
                    await begin_write(connection)
            transaction = SQLAlchemyTransaction(self, connection, read_only=options.read_only)
            yield transaction
            await transaction.check_commit()
            with translate_errors("while committing", commits=True):
                await connection.commit()

    def stats(self) -> PoolStats:
        """Return the sizes of the engine's pool."""
        current = self._pools.current()
        pool: Any = None if current is None else current.engine.pool
        if pool is None or not hasattr(pool, "checkedout"):
            return PoolStats()
        idle, busy = pool.checkedin(), pool.checkedout()
        max_size = self._config.pool.size + self._config.pool.max_overflow
        return PoolStats(size=idle + busy, idle=idle, in_use=busy, max_size=max_size)

    async def native(self) -> AsyncEngine:
        """Return this loop's AsyncEngine."""
        return (await self._pools.pool()).engine
