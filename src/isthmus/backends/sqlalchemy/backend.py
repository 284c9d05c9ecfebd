"""The SQLAlchemy backend: a table for each collection, a prefilter at the store, the rest in the core."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from isthmus._core.executor import ItemResult, Mutation, PoolStats, TransactionOptions, WriteKind
from isthmus._core.loop_pools import LoopBound, secret_digest
from isthmus._core.unique import Duplicate, Unique, missing_unique, unique_of
from isthmus._index_annotation import Declarations
from isthmus.backends.sqlalchemy.claims import find_duplicates
from isthmus.backends.sqlalchemy.config import SQLAlchemyConfig
from isthmus.backends.sqlalchemy.declare import change_declarations, find_table
from isthmus.backends.sqlalchemy.engine import (
    EnginePool,
    begin_write,
    dialect_of,
    lock_wait_of,
    open_engine,
)
from isthmus.backends.sqlalchemy.errors import MissingTableError, translate_errors
from isthmus.backends.sqlalchemy.executor import SQLAlchemyExecutor, SQLAlchemyTransaction
from isthmus.backends.sqlalchemy.schema import (
    claims_table,
    collection_names,
    create_table,
    table_of,
    unique_in,
)
from isthmus.backends.sqlalchemy.support import capabilities_of
from isthmus.errors import ConfigError, SerializationError, UnsupportedError
from sqlalchemy import text

_ATTEMPTS = 5


class SQLAlchemyBackend(SQLAlchemyExecutor):
    """The backend for databases that SQLAlchemy reaches by an asynchronous dialect."""

    name = "sqlalchemy"

    def __init__(self, config: SQLAlchemyConfig) -> None:
        self._dialect_name = dialect_of(config)
        super().__init__({}, capabilities_of(self._dialect_name))
        self._config = config
        self._unique = {name: unique_of(f) for name, f in config.unique_fields().items()}
        if any(self._unique.values()) and not self.capabilities.unique:
            raise UnsupportedError(
                f"sqlalchemy: there are no unique fields on {self._dialect_name}", capability="unique"
            )
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
            await self._declare_unique(collection, connection)
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
                await self._declare_unique(collection, held)
        else:  # MySQL and MariaDB commit the open transaction when a table is created
            await self.open(collection)

    async def _create_table(self, collection: str, connection: AsyncConnection) -> None:
        for _ in range(_ATTEMPTS):
            if await self.find_table(collection, connection):
                return
            if not self._config.create_table:
                raise ConfigError(f"sqlalchemy: there is no table {collection!r}, and create_table is false")
            await create_table(connection, table_of(collection))

    async def find_table(self, collection: str, connection: AsyncConnection) -> bool:
        """Note a collection's table with its declarations; return False if there is none.

        Raises `ConfigError` for a table of other columns.
        """
        table = await find_table(connection, collection)
        if table is None:
            self._tables.pop(collection, None)
            return False
        self._tables[collection] = table
        return True

    async def read_table(self, collection: str) -> None:
        """Read the unique fields of a collection whose table is not as this handle knows it."""
        async with self._connection(collection) as connection:
            await self.find_table(collection, connection)

    # Unique fields

    def declare(self, collection: str, indexes: Declarations) -> bool:
        """Record a model's unique fields; there are no indexes. Return whether any is new."""
        before = self._unique.get(collection, frozenset())
        self._unique[collection] = before | unique_of((name,) for name in indexes.get("unique", ()))
        self._ready.discard(collection)
        return len(self._unique[collection]) > len(before)

    async def _declare_unique(self, collection: str, connection: AsyncConnection) -> None:
        """Make the declared fields of a collection without records unique."""
        wanted = self._unique.get(collection, frozenset())
        if wanted.issubset(unique_in(self._table(collection))):
            return
        if not self._config.create_table:
            raise missing_unique(collection, wanted.difference(unique_in(self._table(collection))))

        def add(declared: frozenset[Unique], some: bool) -> frozenset[Unique]:
            if some and not wanted <= declared:
                raise missing_unique(collection, wanted - declared)
            return declared | wanted

        self._tables[collection] = await change_declarations(connection, collection, add)

    async def find_duplicates(self, collection: str, unique: Unique) -> list[Duplicate]:
        """Return values that several records have, each with some of their ids; 20 values at most."""
        async with self._connection(collection) as connection:
            return await find_duplicates(connection, self._table(collection), unique)

    async def make_unique(self, collection: str, unique: Unique) -> None:
        """Declare fields unique while writers wait; raises `ConfigError` that names the duplicates."""
        async with self._connection(collection, writes=True) as connection:
            self._tables[collection] = await change_declarations(
                connection, collection, lambda declared, some: declared | {unique}
            )

    async def end_unique(self, collection: str, unique: Unique) -> None:
        """End a declaration; a missing one is not an error."""
        async with self._connection(collection, writes=True) as connection:
            self._tables[collection] = await change_declarations(
                connection, collection, lambda declared, some: declared - {unique}
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
            for table in (table_of(collection), claims_table(collection)):
                await connection.run_sync(functools.partial(table.drop, checkfirst=True))

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
            transaction = self._transaction(connection, read_only=options.read_only)
            yield transaction
            await transaction.check_commit()
            with translate_errors("while committing", commits=True):
                await connection.commit()

    def _transaction(self, connection: AsyncConnection, *, read_only: bool) -> SQLAlchemyTransaction:
        return SQLAlchemyTransaction(self, connection, read_only=read_only)

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
