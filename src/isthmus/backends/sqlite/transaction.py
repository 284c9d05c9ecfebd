"""A transaction: the verbs on one lane that is held until commit or rollback."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from isthmus.backends.sqlite.lane import Lane
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.session import Session
from isthmus.backends.sqlite.verbs import Verbs, Work, read_header
from isthmus.errors import ClosedError, TransactionError, UsageError

if TYPE_CHECKING:
    from isthmus.backends.sqlite.backend import SQLiteBackend

T = TypeVar("T")


class Transaction(Verbs):
    """An executor inside one transaction; used by one task at a time."""

    def __init__(self, backend: SQLiteBackend, lane: Lane, *, read_only: bool) -> None:
        self._backend = backend
        self._lane = lane
        self._read_only = read_only
        self._tables: dict[str, Table] = {}
        self._depth = 0
        self.ended = False

    async def _run(self, work: Callable[[Session], T]) -> T:
        if self.ended:
            raise ClosedError("the transaction has ended")
        return await self._lane.run(work)

    async def _table(self, collection: str) -> Table:
        """Return a collection's table; one made here is undone with the transaction."""
        table = self._tables.get(collection)
        if table is None:
            if self._read_only:
                table = await self._backend.table_outside(collection)
            else:
                table = await self._run(
                    lambda session: session.within(
                        lambda s: self._backend.table_within(s, collection), undo=True
                    )
                )
            self._tables[collection] = table
        return table

    async def open(self, collection: str) -> None:
        """Make the collection's table inside the transaction if it is missing."""
        await self._table(collection)

    async def ping(self) -> None:
        """Read the file's header."""
        await self._run(lambda session: session.within(read_header, undo=False))

    async def _reading(self, collection: str, work: Work[T], *, one_state: bool = False) -> T:
        table = await self._table(collection)
        return await self._run(lambda session: session.within(lambda s: work(s, table), undo=False))

    async def _writing(self, collection: str, work: Work[T], *, undo: bool) -> T:
        if self._read_only:
            raise UsageError("the transaction is read-only")
        table = await self._table(collection)
        return await self._run(lambda session: session.within(lambda s: work(s, table), undo=undo))

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a savepoint: leaving by an exception undoes what was done since."""
        self._depth += 1
        name = f"isthmus_{self._depth}"
        tables = dict(self._tables)
        await self._run(lambda session: session.within(lambda s: s.execute(f"SAVEPOINT {name}"), undo=False))
        try:
            yield
        except BaseException:
            self._tables = tables  # those made since are gone
            await self._lane.run(lambda session: _undo(session, name), shielded=True)
            raise
        else:
            await self._run(
                lambda session: session.within(lambda s: s.execute(f"RELEASE {name}"), undo=False)
            )
        finally:
            self._depth -= 1


def _undo(session: Session, name: str) -> None:
    # After a failure that undid the whole transaction there is no savepoint any more.
    if session.connection.in_transaction:
        session.execute(f"ROLLBACK TO {name}")
        session.execute(f"RELEASE {name}")


def read_transaction(backend: SQLiteBackend, lane: Lane) -> Transaction:
    """Return the transaction of a snapshot, which somebody else begins and ends."""
    return Transaction(backend, lane, read_only=True)


@asynccontextmanager
async def write_transaction(
    backend: SQLiteBackend, lane: Lane, release: Callable[[], None]
) -> AsyncIterator[Transaction]:
    """Begin on the writer's lane; commit on leaving, roll back on an exception, then give the lane back."""
    transaction = Transaction(backend, lane, read_only=False)
    try:
        await lane.run(_begin)
        yield transaction
        transaction.ended = True
        await lane.run(_commit)
    finally:
        transaction.ended = True
        await lane.run(Session.rollback, done=release, shielded=True)


def _begin(session: Session) -> None:
    try:
        session.begin()
    except sqlite3.Error as error:
        raise session.failure(error) from error


def _commit(session: Session) -> None:
    if not session.connection.in_transaction:
        raise TransactionError(
            "the transaction was rolled back by an earlier failure; nothing of it was written"
        )
    try:
        session.commit()
    except sqlite3.Error as error:
        raise session.failure(error, committing=True) from error
