"""The SQLite backend: one file, one writer, some readers, each on a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from isthmus._core.executor import (
    After,
    Page,
    PageRequest,
    PoolStats,
    TransactionOptions,
)
from isthmus._core.loop_pools import LoopBound
from isthmus._index_annotation import Declarations
from isthmus._path import Path
from isthmus._query.order import cursor_position
from isthmus.backends.sqlite.config import SQLiteConfig
from isthmus.backends.sqlite.executor import SQLiteExecutor, Work, read_header
from isthmus.backends.sqlite.pool import MemoryDatabase, Pool
from isthmus.backends.sqlite.schema import (
    Table,
    check_name,
    collection_names,
    create_table,
    drop_table,
    find_table,
    index_paths,
)
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.transaction import SQLiteTransaction, read_transaction, write_transaction
from isthmus.errors import ConfigError, UnexpectedError, UnsupportedError

T = TypeVar("T")


class SQLiteBackend(SQLiteExecutor):
    """An executor over a file, or over memory that lives as long as this object is open."""

    name = "sqlite"

    def __init__(self, config: SQLiteConfig) -> None:
        self._config = config
        self._memory = MemoryDatabase() if config.in_memory else None
        self._declared: dict[str, tuple[Path, ...]] = {
            name: index_paths(config.indexes_of(name)) for name in (config.table, *config.collections)
        }
        # A database in memory belongs to its handle; a file is shared by all handles of a loop.
        key = (config.pool_key(), self._memory)
        self._pools: LoopBound[Pool] = LoopBound(key, self._open_pool)

    @property
    def default_collection(self) -> str:
        """Return the config's table."""
        return self._config.table

    async def _open_pool(self) -> Pool:
        if self._memory is not None:
            self._memory.keep()
        return await Pool.opened(self._config, self._memory)

    async def _pool(self) -> Pool:
        return self._pools.current() or await self._pools.pool()

    async def open(self, collection: str) -> None:
        """Open the file, check access and format, and make the collection ready."""
        await self._table(await self._pool(), collection)

    async def close(self) -> None:
        """Give back the connections; the last handle of a file closes it."""
        await self._pools.close()
        if self._memory is not None:
            self._memory.close()

    def declare(self, collection: str, indexes: Declarations) -> bool:
        """Take note of a model's indexes, to be made at the next opening; return whether any is new.

        SQLite has one kind, which serves `indexes` and `prefix`.
        """
        before = self._declared.get(collection, ())
        wanted = index_paths((*indexes.get("indexes", ()), *indexes.get("prefix", ())))
        self._declared[collection] = tuple(dict.fromkeys((*before, *wanted)))
        return len(self._declared[collection]) > len(before)

    async def ping(self) -> None:
        """Read the file's header."""
        pool = await self._pool()
        await pool.readers.run(lambda session: session.read(read_header))

    async def collections(self) -> list[str]:
        """Return the names of the collections in the file."""
        pool = await self._pool()
        return await pool.readers.run(lambda session: session.read(lambda s: collection_names(s.connection)))

    async def drop(self, collection: str) -> None:
        """Drop a collection's table."""
        pool = await self._pool()

        def dropped(session: SQLiteSession) -> None:
            drop_table(session.connection, self._config.path, collection)

        async with pool.making:
            await pool.writer.run(lambda session: session.write(dropped))
            pool.tables.pop(collection, None)

    def stats(self) -> PoolStats:
        """Return a snapshot of this loop's connections."""
        pool = self._pools.current()
        return PoolStats() if pool is None else pool.stats()

    async def native(self) -> Pool:
        """Return this loop's pool, whose `writer.run(f)` and `readers.run(f)` call `f(session)`."""
        return await self._pool()

    # Tables

    async def _table(self, pool: Pool, collection: str) -> Table:
        """Return the collection's table, made if it is missing and the config allows it."""
        table = pool.tables.get(collection)
        declared = self._declared.get(collection, ())
        if table is not None and table.indexed.issuperset(declared):
            return table
        async with pool.making:
            check_name(collection)
            if self._config.create_table == "never":
                table = await pool.readers.run(
                    lambda session: session.read(lambda s: self._require_table(s, collection))
                )
            else:
                table = await pool.writer.run(
                    lambda session: session.write(lambda s: self._create_table(s, collection))
                )
            pool.tables[collection] = table
            return table

    def _require_table(self, session: SQLiteSession, collection: str) -> Table:
        table = find_table(session.connection, self._config.path, collection)
        if table is None:
            raise ConfigError(
                f"{self._config.path}: has no collection {collection!r}, and create_table is 'never'"
            )
        return table

    def _create_table(self, session: SQLiteSession, collection: str) -> Table:
        return create_table(
            session.connection, self._config.path, collection, self._declared.get(collection, ())
        )

    def table_within(self, session: SQLiteSession, collection: str) -> Table:
        """Return the collection's table inside a transaction that holds the writer."""
        check_name(collection)
        present = self._config.create_table == "never"
        return (
            self._require_table(session, collection) if present else self._create_table(session, collection)
        )

    async def table_outside(self, collection: str) -> Table:
        """Return the collection's table, made outside of any transaction."""
        return await self._table(await self._pool(), collection)

    # Where jobs run

    async def _run_read(self, collection: str, work: Work[T], *, one_state: bool = False) -> T:
        pool = await self._pool()
        table = await self._table(pool, collection)

        def job(session: SQLiteSession) -> T:
            run = session.snapshot if one_state else session.read
            return run(lambda s: work(s, table))

        try:
            return await pool.readers.run(job)
        except UnexpectedError:
            pool.tables.pop(collection, None)  # another program may have dropped the table
            raise

    async def _run_write(self, collection: str, work: Work[T], *, undo: bool) -> T:
        pool = await self._pool()
        table = await self._table(pool, collection)
        try:
            return await pool.writer.run(lambda session: session.write(lambda s: work(s, table)))
        except UnexpectedError:
            pool.tables.pop(collection, None)
            raise

    # Streams of one snapshot, which the token of `after` names.

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page; with `consistent`, from the snapshot that the first page took."""
        if not request.consistent:
            return await super().fetch(collection, request)
        pool = await self._pool()
        await self._table(pool, collection)
        if request.after is not None and request.after.token is not None:
            snapshot = pool.get_snapshot(request.after.token)
        else:
            snapshot = await pool.snapshot()
        page = None
        try:
            page = await read_transaction(self, snapshot.thread).fetch(collection, request)
        finally:
            if page is None or page.after is None:
                await snapshot.end()
        if page.after is None:
            return page
        position = cursor_position(page.records[-1], request.order or ())
        return Page(page.records, After(position, snapshot.token))

    async def release(self, collection: str, after: After) -> None:
        """Give back the snapshot of a stream that was left."""
        pool = self._pools.current()
        if pool is not None:
            await pool.release(after.token)

    # Transactions

    def begin(self, options: TransactionOptions) -> AbstractAsyncContextManager[SQLiteTransaction]:
        """Open a transaction; it waits for its turn as the writer unless it only reads."""
        if options.isolation not in (None, *self.capabilities.isolation):
            raise UnsupportedError(
                f"sqlite has the isolation level serializable only, not {options.isolation}",
                capability="isolation",
            )
        return self._read_only() if options.read_only else self._read_write()

    @asynccontextmanager
    async def _read_only(self) -> AsyncIterator[SQLiteTransaction]:
        pool = await self._pool()
        await self._table(pool, self._config.table)
        snapshot = await pool.snapshot()
        transaction = read_transaction(self, snapshot.thread)
        try:
            yield transaction
        finally:
            transaction.ended = True
            await snapshot.end()

    @asynccontextmanager
    async def _read_write(self) -> AsyncIterator[SQLiteTransaction]:
        pool = await self._pool()
        thread = await pool.writer.acquire()
        async with write_transaction(self, thread, lambda: pool.writer.release(thread)) as transaction:
            yield transaction
