"""The SQLite backend: one file, one writer and some readers, each connection on a thread of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from isthmus._core.columns import DeclaredColumn, columns_in, columns_of, join_columns
from isthmus._core.executor import After, Page, PageRequest, PoolStats, TransactionOptions
from isthmus._core.loop_pools import LoopBound
from isthmus._core.unique import Duplicate, Unique, has_duplicates, missing_unique, unique_of
from isthmus._index_annotation import Declarations
from isthmus._path import Path
from isthmus._query.order import cursor_position
from isthmus.backends.sqlite.change_methods import ChangeMethods
from isthmus.backends.sqlite.change_tables import drop_changes, ensure_changes, find_changes
from isthmus.backends.sqlite.column_methods import ColumnMethods
from isthmus.backends.sqlite.columns import check_column
from isthmus.backends.sqlite.config import SQLiteConfig
from isthmus.backends.sqlite.connection_thread import ConnectionThread
from isthmus.backends.sqlite.displaced import note_displaced
from isthmus.backends.sqlite.errors import is_missing_column, is_missing_table
from isthmus.backends.sqlite.executor import SQLiteExecutor, Work, make_page, read_header, run_query
from isthmus.backends.sqlite.fields import reads_numbers_exactly
from isthmus.backends.sqlite.pool import MemoryDatabase, Pool
from isthmus.backends.sqlite.read_snapshot import ReadSnapshot
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
from isthmus.backends.sqlite.statement import quote_name
from isthmus.backends.sqlite.transaction import SQLiteTransaction, read_transaction, write_transaction
from isthmus.backends.sqlite.unique import (
    add_unique,
    check_unique,
    drop_unique,
    find_duplicates,
    read_unique,
)
from isthmus.errors import ClosedError, ConfigError, UnsupportedError

T = TypeVar("T")


class SQLiteBackend(ChangeMethods, ColumnMethods, SQLiteExecutor):
    """An executor over a file, or over a database in memory that lives as long as this object is open."""

    name = "sqlite"

    def __init__(self, config: SQLiteConfig) -> None:
        self._config = config
        self._memory = MemoryDatabase() if config.in_memory else None
        self._declared: dict[str, tuple[Path, ...]] = {
            name: index_paths(config.indexes_of(name)) for name in (config.table, *config.collections)
        }
        self._unique: dict[str, frozenset[Unique]] = {
            name: frozenset(map(check_unique, unique_of(config.unique_of(name))))
            for name in (config.table, *config.collections)
        }
        self._wanted: dict[str, tuple[DeclaredColumn, ...]] = {
            name: tuple(map(check_column, columns_of(config.columns_of(name))))
            for name in (config.table, *config.collections)
        }
        self._complete: dict[str, Table] = {}
        """The tables that were found to have what this handle declares."""
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
        return await Pool.open(self._config, self._memory)

    async def _pool(self) -> Pool:
        return self._pools.current() or await self._pools.pool()

    async def open(self, collection: str) -> None:
        """Open the file, check access and format, and create the collection's table if it is missing.

        Raises `ConnectError`, `AccessError` or `ConfigError`, which names the cause.
        """
        await self._table(await self._pool(), collection)

    async def close(self) -> None:
        """Release the connections and end open streams; the last handle of a file closes the connections."""
        self._pools.call_on_each(lambda pool: pool.end_streams(self))
        await self._pools.close()
        if self._memory is not None:
            self._memory.close()

    def declare(self, collection: str, indexes: Declarations) -> bool:
        """Record a model's indexes, to be built at the next opening; return whether any is new.

        SQLite has one kind of index, which serves `indexes` and `prefix`.
        """
        unique = frozenset(map(check_unique, unique_of((name,) for name in indexes.get("unique", ()))))
        missing = unique - self._unique.get(collection, frozenset())
        self._unique[collection] = self._unique.get(collection, frozenset()) | unique
        before = self._declared.get(collection, ())
        self._complete.pop(collection, None)
        columns = self._wanted.get(collection, ())
        self._wanted[collection] = join_columns(columns, map(check_column, columns_in(indexes)))
        wanted = index_paths((*indexes.get("indexes", ()), *indexes.get("prefix", ())))
        self._declared[collection] = tuple(dict.fromkeys((*before, *wanted)))
        new_columns = self._wanted[collection] != columns
        return bool(missing) or new_columns or len(self._declared[collection]) > len(before)

    async def ping(self) -> None:
        """Read the file's header."""
        pool = await self._pool()
        await pool.readers.run(lambda session: session.read(read_header))

    def terminate(self) -> None:
        """Drop the connections of all loops; a running statement is interrupted."""
        self._pools.call_on_each(lambda pool: pool.end_streams(self))
        self._pools.discard()
        if self._memory is not None:
            self._memory.close()

    async def collections(self) -> list[str]:
        """Return the names of the collections in the file, sorted."""
        pool = await self._pool()
        return await pool.readers.run(lambda session: session.read(lambda s: collection_names(s.connection)))

    async def drop(self, collection: str) -> None:
        """Drop a collection's table and indexes; a missing one is not an error.

        Handles in any process then read an empty collection, and create the table at their next write.
        """
        pool = await self._pool()

        def drop(session: SQLiteSession) -> None:
            drop_changes(session.connection, collection, keep_table=False)
            drop_table(session.connection, self._config.path, collection)

        async with pool.creating:
            await pool.writer.run(lambda session: session.write(drop))

    def stats(self) -> PoolStats:
        """Return a snapshot of this loop's connections."""
        pool = self._pools.current()
        return PoolStats() if pool is None else pool.stats()

    async def native(self) -> Pool:
        """Return this loop's pool, whose `writer.run(f)` and `readers.run(f)` call `f(session)`."""
        return await self._pool()

    # Tables

    async def _table(self, pool: Pool, collection: str) -> Table:
        """Return the collection's table; on first use it is created if the config allows it."""
        table = pool.tables.get(collection)
        if table is not None and table is self._complete.get(collection):
            return table
        declared = self._declared.get(collection, ())
        unique = self._unique.get(collection, frozenset())
        if (
            table is not None
            and table.indexed.issuperset(declared)
            and table.unique.issuperset(unique)
            and (table.order or not self._config.changes)
            and self._has_columns(table)
        ):
            self._complete[collection] = table
            return table
        async with pool.creating:
            if self._config.create_table == "never":
                table = await pool.readers.run(
                    lambda session: session.read(lambda s: self.ensure_table(s, collection))
                )
            else:
                table = await pool.writer.run(
                    lambda session: session.write(lambda s: self.ensure_table(s, collection))
                )
            table = self._note_missing(pool.tables.get(collection), table)
            pool.tables[collection] = self._complete[collection] = table
            return table

    def ensure_table(self, session: SQLiteSession, collection: str) -> Table:
        """Return the collection's table, created in the open transaction if it is missing.

        Raises `ConfigError` where it is missing and `create_table` is `never`.
        """
        check_name(collection)
        path = self._config.path
        if self._config.create_table != "never":
            created = create_table(session.connection, path, collection, self._declared.get(collection, ()))
            return self._with_declarations(session, created)
        table = find_table(session.connection, path, collection)
        if table is None:
            raise ConfigError(f"{path}: there is no collection {collection!r}, and create_table is 'never'")
        return self._with_declarations(session, table)

    def _with_declarations(self, session: SQLiteSession, table: Table) -> Table:
        """Return a table with what is declared in the file; raises `ConfigError` if the config wants more."""
        may_create = self._config.create_table != "never"
        if self._config.changes and ensure_changes(session.connection, table.name, may_create=may_create):
            note_displaced(session.connection, table.name)
        changes = find_changes(session.connection, table.name)
        order = "" if changes is None else f"{changes.last} + 1"
        unique = self._ensure_unique(session, table.name)
        columns, missing = self._ensure_columns(session.connection, table.name)
        if not reads_numbers_exactly():
            columns = {}
        return replace(table, unique=unique, order=order, columns=columns, missing=missing)

    def _ensure_unique(self, session: SQLiteSession, collection: str) -> frozenset[Unique]:
        """Make the declared fields unique, and return all that are.

        Raises `ConfigError` for a collection that has records.
        """
        declared = read_unique(session.connection, collection)
        missing = self._unique.get(collection, frozenset()) - declared
        if missing and (
            self._config.create_table == "never"
            or session.execute(f"SELECT 1 FROM {quote_name(collection)} LIMIT 1").fetchone()
        ):
            raise missing_unique(collection, missing)
        for unique in missing:
            add_unique(session.connection, collection, unique)
        if missing:
            note_displaced(session.connection, collection)
        return declared | missing

    async def find_duplicates(self, collection: str, unique: Unique) -> list[Duplicate]:
        """Return values that several records have, each with some of their ids; 20 values at most."""
        return await self._run_read(
            collection, lambda session, table: find_duplicates(session.connection, table.source, unique)
        )

    async def make_unique(self, collection: str, unique: Unique) -> None:
        """Declare fields unique while writers wait; raises `ConfigError` that names the duplicates."""

        def make(session: SQLiteSession, table: Table) -> None:
            connection = session.connection
            if unique in read_unique(connection, table.name):
                return
            found = find_duplicates(connection, table.source, unique)
            if found:
                raise has_duplicates(table.name, unique, found)
            add_unique(connection, table.name, unique)
            note_displaced(connection, table.name)

        await self._run_write(collection, make, undo=True)

    async def end_unique(self, collection: str, unique: Unique) -> None:
        """End a declaration; a missing one is not an error."""
        await self._run_write(
            collection, lambda session, table: drop_unique(session.connection, table.name, unique), undo=True
        )

    async def open_table(self, collection: str) -> Table:
        """Return the collection's table, created outside of any transaction if it is missing."""
        return await self._table(await self._pool(), collection)

    # Where jobs run

    async def _run_read(self, collection: str, work: Work[T], *, snapshot: bool = False) -> T:
        pool = await self._pool()
        table = await self._table(pool, collection)

        def job(session: SQLiteSession) -> T:
            run = session.read_snapshot if snapshot else session.read
            return run(lambda s: run_query(s, table, work))

        return await pool.readers.run(job)

    async def _run_write(self, collection: str, work: Work[T], *, undo: bool) -> T:
        pool = await self._pool()
        table = await self._table(pool, collection)

        def write(session: SQLiteSession) -> T:
            try:
                return work(session, table)
            except sqlite3.OperationalError as error:
                if not (is_missing_table(error) or is_missing_column(error)):
                    raise
            # It was dropped by any handle or process: this write creates it again, or finds another one.
            pool.tables[collection] = created = self.ensure_table(session, collection)
            return work(session, created)

        return await pool.writer.run(lambda session: session.write(write))

    # Streams of one snapshot, which the token of `after` names.

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page of matching records.

        With `consistent` it comes from the snapshot that the first page took, which holds a reader
        until the last page or `release`. Raises `ClosedError` when that snapshot has ended. A sorted
        stream without it keeps a reader as long as nobody waits for one.
        """
        keeps_cursor = request.streamed and bool(request.order) and not self._config.in_memory
        if not (request.consistent or keeps_cursor):
            return await super().fetch(collection, request)
        table = await self._table(await self._pool(), collection)

        async def read(snapshot: ReadSnapshot) -> Page:
            if not request.order:
                return await read_transaction(self, snapshot.thread).fetch(collection, request)
            rows = await snapshot.fetch(table, request)
            return make_page(rows, request, more=len(rows) == request.size)

        return await self._fetch_in_snapshot(request, read)

    async def _fetch_in_snapshot(
        self, request: PageRequest, read: Callable[[ReadSnapshot], Awaitable[Page]]
    ) -> Page:
        """Read one page in the stream's snapshot, or in a new one, and keep that if more pages follow."""
        pool = await self._pool()
        token = None if request.after is None else request.after.token
        snapshot = None if token is None else pool.find_snapshot(token)
        if snapshot is None:
            if token is not None and request.consistent:
                raise ClosedError("the stream's snapshot has ended")
            snapshot = await pool.snapshot(self)
        is_kept = False
        try:
            page = await read(snapshot)
            is_kept = page.after is not None and (request.consistent or snapshot.allow_reclaim())
        finally:
            if not is_kept:
                await snapshot.end()
        if page.after is None:
            return page
        position = cursor_position(page.records[-1], request.order or ())
        return Page(page.records, After(position, snapshot.token if is_kept else None))

    async def release(self, collection: str, after: After) -> None:
        """End the snapshot of a stream that was not read to its end."""
        pool = self._pools.current()
        if pool is not None:
            await pool.release(after.token)

    # Transactions

    def transaction_on(self, thread: ConnectionThread, *, read_only: bool) -> SQLiteTransaction:
        """Return a transaction on a connection, which the caller begins and ends."""
        return SQLiteTransaction(self, thread, read_only=read_only)

    def begin(self, options: TransactionOptions) -> AbstractAsyncContextManager[SQLiteTransaction]:
        """Open a transaction: commit on leaving, roll back on an exception.

        One that may write waits up to `pool.timeout` seconds for the writer. Raises
        `UnsupportedError` for an isolation level other than serializable.
        """
        if options.isolation not in (None, *self.capabilities.isolation):
            raise UnsupportedError(
                f"sqlite has the isolation level serializable only, not {options.isolation}",
                capability="isolation",
            )
        return self._begin_read() if options.read_only else self._begin_write()

    @asynccontextmanager
    async def _begin_read(self) -> AsyncIterator[SQLiteTransaction]:
        pool = await self._pool()
        await self.open(self._config.table)
        snapshot = await pool.snapshot()
        transaction = read_transaction(self, snapshot.thread)
        try:
            yield transaction
        finally:
            transaction.ended = True
            await snapshot.end()

    @asynccontextmanager
    async def _begin_write(self) -> AsyncIterator[SQLiteTransaction]:
        pool = await self._pool()
        thread = await pool.writer.acquire()
        async with write_transaction(self, thread, lambda: pool.writer.release(thread)) as transaction:
            yield transaction
