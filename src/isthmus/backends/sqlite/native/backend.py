"""The backend of `layout="native"`: the tables of a file as they are."""

from __future__ import annotations

from typing import Any, TypeVar

from isthmus._core.capabilities import Capabilities
from isthmus._core.changes import ChangePage, Position, StoredChange
from isthmus._core.executor import Page, PageRequest
from isthmus._index_annotation import Declarations
from isthmus._value import replace
from isthmus.backends._tables.keys import sort_key_of
from isthmus.backends.sqlite.backend import SQLiteBackend
from isthmus.backends.sqlite.config import SQLiteConfig
from isthmus.backends.sqlite.connection_thread import ConnectionThread
from isthmus.backends.sqlite.native import changes
from isthmus.backends.sqlite.native.columns import Affinity
from isthmus.backends.sqlite.native.executor import TableExecutor, TableWork
from isthmus.backends.sqlite.native.table import SQLiteTable, read_table, table_names
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.support import CAPABILITIES, SUPPORT, SQLiteSupport
from isthmus.backends.sqlite.transaction import SQLiteTransaction, read_transaction
from isthmus.errors import UnsupportedError, UsageError

T = TypeVar("T")


class KeySupport(SQLiteSupport):
    """What can be pushed down for a table whose ids do not sort as texts."""

    def __init__(self, table: SQLiteTable) -> None:
        self._table = table

    def id_key(self, id: str) -> tuple[Any, ...]:
        """Return what an id sorts by."""
        return sort_key_of(self._table, id)


class NativeSQLiteBackend(SQLiteBackend, TableExecutor):
    """An executor over the tables of a file that others made."""

    def __init__(self, config: SQLiteConfig) -> None:
        super().__init__(config)
        # Of the handle, not of the pool: settings such as `key` are the handle's.
        self._known: dict[str, SQLiteTable] = {}

    @property
    def capabilities(self) -> Capabilities:
        """Return what the default table admits; before it was opened, what most tables do."""
        table = self._known.get(self._config.table)
        has_version = any(
            self._config.version_of(name) is not None
            for name in (self._config.table, *self._config.collections)
        )
        return replace(
            CAPABILITIES,
            writes=table is None or not table.read_only,
            compare_and_set=has_version,
            unique=False,
            changes=self._config.changes,
            indexes=False,
            columns=False,
            drop=False,
        )

    def support(self, collection: str) -> SQLiteSupport:
        """Return what can be pushed down, and how ids sort, as is known once the collection was opened."""
        table = self._known.get(collection)
        if table is None or (len(table.key) == 1 and table.keys[0].affinity is Affinity.TEXT):
            return SUPPORT
        return KeySupport(table)

    async def open(self, collection: str) -> None:
        """Open the file and read the table's description; changes nothing in the file.

        Raises `ConnectError`, `AccessError` or `ConfigError`, which names the cause, and
        `UnsupportedError` for a table without the triggers that `changes=True` needs.
        """

        def check(session: SQLiteSession, table: SQLiteTable) -> None:
            if self._config.changes:
                changes.current_position(session, table)

        await self._read_table(collection, check)

    def current_table(self, session: SQLiteSession, collection: str) -> SQLiteTable:
        """Return a table as it is now: it is read again after any change of the file's schema.

        Raises `ConfigError` if there is none.
        """
        table = self._known.get(collection)
        if table is not None:
            [(version,)] = session.execute("PRAGMA schema_version").fetchall()
            if version == table.schema_version:
                return table
        config = self._config
        table = read_table(
            session.connection,
            config.path,
            collection,
            key=config.key_of(collection),
            version=config.version_of(collection),
        )
        self._known[collection] = table
        return table

    def declare(self, collection: str, indexes: Declarations) -> bool:
        """Return False: the indexes of a table are its owner's."""
        return False

    async def collections(self) -> list[str]:
        """Return the names of the file's tables and views, sorted."""
        pool = await self._pool()
        return await pool.readers.run(lambda session: session.read(lambda s: table_names(s.connection)))

    async def drop(self, collection: str) -> None:
        """Raise `UnsupportedError`: a table of others is never dropped."""
        raise UnsupportedError("a native layout never drops a table", capability="drop")

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page of matching records, each a query of its own.

        With `consistent` it comes from the snapshot that the first page took, which holds a reader
        until the last page or `release`. Raises `ClosedError` when that snapshot has ended.
        """
        if not request.consistent:
            return await TableExecutor.fetch(self, collection, request)
        return await self._fetch_in_snapshot(
            request, lambda snapshot: read_transaction(self, snapshot.thread).fetch(collection, request)
        )

    # Changes, which triggers of the table's owner note

    async def change_statements(self, collection: str) -> list[str]:
        """Return the statements by which a table's owner lets it keep its changes."""
        return await self._read_table(collection, lambda session, table: changes.change_statements(table))

    async def changes_position(self, collection: str) -> Position:
        """Return the position of now."""
        return await self._read_table(collection, changes.current_position, snapshot=True)

    async def read_changes(self, collection: str, position: Position, limit: int) -> ChangePage:
        """Return at most `limit` changes after a position; one snapshot."""
        page = await self._read_table(
            collection,
            lambda session, table: changes.read_changes(session, table, position, limit),
            snapshot=True,
        )
        await self._prune_soon(collection)
        return page

    async def read_records(
        self, collection: str, position: Position, limit: int
    ) -> tuple[list[StoredChange], bool]:
        """Return records after an id, by id, and whether there are more; one snapshot."""
        return await self._read_table(
            collection,
            lambda session, table: changes.read_records(session, table, position, limit),
            snapshot=True,
        )

    async def make_changes(self, collection: str) -> None:
        """Raise `UnsupportedError`: a table of others is never changed."""
        raise await self._read_table(collection, lambda session, table: changes.missing_triggers(table))

    async def end_changes(self, collection: str) -> None:
        """Raise `UnsupportedError`: a table of others is never changed."""
        raise UnsupportedError("a native layout drops no trigger; its owner does", capability="changes")

    async def _read_table(self, collection: str, work: TableWork[T], *, snapshot: bool = False) -> T:
        pool = await self._pool()

        def job(session: SQLiteSession) -> T:
            run = session.read_snapshot if snapshot else session.read
            return run(lambda s: work(s, self.current_table(s, collection)))

        return await pool.readers.run(job)

    async def _write_table(self, collection: str, work: TableWork[T]) -> T:
        pool = await self._pool()
        return await pool.writer.run(
            lambda session: session.write(lambda s: work(s, self.current_table(s, collection)))
        )

    def transaction_on(self, thread: ConnectionThread, *, read_only: bool) -> SQLiteTransaction:
        """Return a transaction on a connection."""
        return NativeSQLiteTransaction(self, thread, read_only=read_only)


class NativeSQLiteTransaction(SQLiteTransaction, TableExecutor):
    """An executor inside one transaction; used by one task at a time."""

    def __init__(self, backend: NativeSQLiteBackend, thread: ConnectionThread, *, read_only: bool) -> None:
        super().__init__(backend, thread, read_only=read_only)
        self._native = backend

    @property
    def capabilities(self) -> Capabilities:
        """Return what the default table admits."""
        return self._native.capabilities

    def support(self, collection: str) -> SQLiteSupport:
        """Return what can be pushed down."""
        return self._native.support(collection)

    async def open(self, collection: str) -> None:
        """Read the table's description."""
        await self._read_table(collection, lambda session, table: None)

    async def _read_table(self, collection: str, work: TableWork[T], *, snapshot: bool = False) -> T:
        return await self._run(
            lambda session: session.run_part(
                lambda s: work(s, self._native.current_table(s, collection)), undo=False
            )
        )

    async def _write_table(self, collection: str, work: TableWork[T]) -> T:
        if self._read_only:
            raise UsageError("the transaction is read-only")
        return await self._run(
            lambda session: session.run_part(
                lambda s: work(s, self._native.current_table(s, collection)), undo=True
            )
        )
