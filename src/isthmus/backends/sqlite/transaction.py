"""A transaction: the executor on one connection, which is held until commit or rollback."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from isthmus.backends.sqlite.connection_thread import ConnectionThread
from isthmus.backends.sqlite.executor import SQLiteExecutor, Work, read_header, run_query
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.errors import ClosedError, TransactionError, UsageError

if TYPE_CHECKING:
    from isthmus.backends.sqlite.backend import SQLiteBackend

T = TypeVar("T")
Args: TypeAlias = "Sequence[Any] | Mapping[str, Any]"


class SQLiteTransaction(SQLiteExecutor):
    """An executor inside one transaction; used by one task at a time."""

    def __init__(self, backend: SQLiteBackend, thread: ConnectionThread, *, read_only: bool) -> None:
        self._backend = backend
        self._thread = thread
        self._read_only = read_only
        self._tables: dict[str, Table] = {}
        self._depth = 0
        self.ended = False

    async def _run(self, work: Callable[[SQLiteSession], T]) -> T:
        if self.ended:
            raise ClosedError("the transaction has ended")
        return await self._thread.run(work)

    async def run_native(self, text: str, args: Args, result: Callable[[sqlite3.Cursor], T]) -> T:
        """Run one statement of the user; if it fails it is undone alone."""

        def work(session: SQLiteSession) -> T:
            try:
                return _run_native(session, text, args, result)
            except sqlite3.OperationalError as error:
                if self._read_only and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
                    raise TransactionError("this transaction is read-only, and the SQL writes") from error
                raise

        return await self._run(lambda session: session.run_part(work, undo=True))

    async def _table(self, collection: str) -> Table:
        """Return a collection's table; one that is created here goes when the transaction is rolled back."""
        table = self._tables.get(collection)
        if table is None:
            if self._read_only:
                table = await self._backend.open_table(collection)
            else:
                table = await self._run(
                    lambda session: session.run_part(
                        lambda s: self._backend.ensure_table(s, collection), undo=True
                    )
                )
            self._tables[collection] = table
        return table

    async def open(self, collection: str) -> None:
        """Create the collection's table inside the transaction if it is missing."""
        await self._table(collection)

    async def ping(self) -> None:
        """Read the file's header."""
        await self._run(lambda session: session.run_part(read_header, undo=False))

    async def _run_read(self, collection: str, work: Work[T], *, snapshot: bool = False) -> T:
        table = await self._table(collection)
        return await self._run(
            lambda session: session.run_part(lambda s: run_query(s, table, work), undo=False)
        )

    async def _run_write(self, collection: str, work: Work[T], *, undo: bool) -> T:
        if self._read_only:
            raise UsageError("the transaction is read-only")
        table = await self._table(collection)
        return await self._run(lambda session: session.run_part(lambda s: work(s, table), undo=undo))

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a savepoint: leaving it by an exception undoes the writes since."""
        self._depth += 1
        name = f"isthmus_{self._depth}"
        tables = dict(self._tables)
        await self._run(
            lambda session: session.run_part(lambda s: s.execute(f"SAVEPOINT {name}"), undo=False)
        )
        try:
            yield
        except BaseException:
            self._tables = tables  # those created since are gone
            await self._thread.run(lambda session: _undo(session, name), shielded=True)
            raise
        else:
            await self._run(
                lambda session: session.run_part(lambda s: s.execute(f"RELEASE {name}"), undo=False)
            )
        finally:
            self._depth -= 1


def _run_native(session: SQLiteSession, text: str, args: Args, result: Callable[[sqlite3.Cursor], T]) -> T:
    is_refused = False

    def authorize(action: int, *_: object) -> int:
        nonlocal is_refused
        is_refused |= action == sqlite3.SQLITE_TRANSACTION
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK

    session.connection.set_authorizer(authorize)
    try:
        return result(session.connection.execute(text, args))
    except sqlite3.DatabaseError:
        if not is_refused:
            raise
    finally:
        session.connection.set_authorizer(None)
    raise UsageError("sqlite: a transaction ends with its block; use tx.savepoint() for a part of it")


class NativeSQLite:
    """SQL inside a transaction: what it does is committed or rolled back with the records' operations.

    Runs on the transaction's own thread. Arguments are a sequence for `?` or a mapping for `:name`.
    Errors are those of isthmus, with the driver's as `__cause__`; a statement that fails is undone alone.
    """

    __slots__ = ("_transaction", "_turn")

    def __init__(
        self, transaction: SQLiteTransaction, turn: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        self._transaction = transaction
        self._turn = turn

    async def execute(self, sql: str, args: Args = ()) -> int:
        """Run one statement; return how many rows it changed, -1 for one that changes none."""
        async with self._turn():
            return await self._transaction.run_native(sql, args, lambda cursor: cursor.rowcount)

    async def fetch(self, sql: str, args: Args = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows."""
        async with self._turn():
            return await self._transaction.run_native(sql, args, lambda cursor: cursor.fetchall())


def _undo(session: SQLiteSession, name: str) -> None:
    # A failure that has rolled back the whole transaction leaves no savepoint.
    if session.connection.in_transaction:
        session.execute(f"ROLLBACK TO {name}")
        session.execute(f"RELEASE {name}")


def read_transaction(backend: SQLiteBackend, thread: ConnectionThread) -> SQLiteTransaction:
    """Return a read-only transaction on a snapshot, which the caller begins and ends."""
    return backend.transaction_on(thread, read_only=True)


@asynccontextmanager
async def write_transaction(
    backend: SQLiteBackend, thread: ConnectionThread, release: Callable[[], None]
) -> AsyncIterator[SQLiteTransaction]:
    """Begin on the writer's thread; commit on leaving, roll back on an exception, then release the thread."""
    transaction = backend.transaction_on(thread, read_only=False)
    try:
        await thread.run(_begin)
        yield transaction
        transaction.ended = True
        await thread.run(_commit)
    finally:
        transaction.ended = True
        await thread.run(SQLiteSession.rollback, done=release, shielded=True)


def _begin(session: SQLiteSession) -> None:
    try:
        session.begin()
    except sqlite3.Error as error:
        raise session.failure(error) from error


def _commit(session: SQLiteSession) -> None:
    if not session.connection.in_transaction:
        raise TransactionError("the transaction was rolled back by an earlier failure; nothing was written")
    try:
        session.commit()
    except sqlite3.Error as error:
        raise session.failure(error, committing=True) from error
