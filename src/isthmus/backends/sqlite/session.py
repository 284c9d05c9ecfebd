"""A connection with our SQL functions, its transactions, and cancellation of what runs on it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from isthmus.backends.sqlite.errors import is_busy, is_interrupt, translate
from isthmus.backends.sqlite.functions import Functions
from isthmus.backends.sqlite.statement import Statement
from isthmus.errors import IsthmusError, TransactionError, UnavailableError

if TYPE_CHECKING:
    from isthmus.backends.sqlite.connection_thread import ThreadJob

T = TypeVar("T")
# Seconds that SQLite itself waits for a lock before we check for cancellation.
_BUSY_SLICE = 0.1
# Instructions of SQLite's virtual machine between two such checks; about a millisecond.
_STEPS = 100_000


class Stopped(UnavailableError):
    """The job's caller was cancelled, or the handle was terminated; nothing of the job is applied."""

    def __init__(self) -> None:
        super().__init__("stopped: the caller was cancelled, or the handle was terminated")


class SQLiteSession:
    """A connection, used by its own thread only (except for `interrupt`)."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        label: str,
        busy_timeout: float,
        functions: Callable[[sqlite3.Connection], Functions] = Functions,
    ) -> None:
        self.connection = connection
        self.label = label
        self.job: ThreadJob | None = None
        self.reopens = True
        """Whether a new connection finds the same database; false for a private copy in memory."""
        self._busy_timeout = busy_timeout
        self._functions = functions(connection)
        connection.set_progress_handler(self._stop, _STEPS)
        connection.execute(f"PRAGMA busy_timeout = {int(min(_BUSY_SLICE, busy_timeout) * 1000)}")

    def interrupt(self) -> None:
        """Stop the running statement; may be called from any thread while the session is open."""
        self.connection.interrupt()

    def _stop(self) -> bool:
        """Return whether SQLite is to stop: an interrupt between two statements would be lost."""
        return self.job is not None and self.job.cancelled

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""
        self.connection.close()

    def check(self) -> None:
        """Raise `Stopped` if the job is not to go on."""
        if self.job is not None and self.job.cancelled:
            raise Stopped

    def rows(self, statement: Statement) -> list[Any]:
        """Return all rows of a query."""
        return self.open_cursor(statement).fetchall()

    def open_cursor(self, statement: Statement) -> sqlite3.Cursor:
        """Run a query and return its cursor, which is to be read before other statements are run."""
        self._functions.use(statement.tests)
        return self.connection.execute(statement.text, statement.args)

    def run(self, statement: Statement) -> int:
        """Run a statement that writes and return the number of rows it affected."""
        self._functions.use(statement.tests)
        return self.connection.execute(statement.text, statement.args).rowcount

    def run_many(self, text: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run a statement once for each row of arguments and return the number of rows affected in all."""
        return self.connection.executemany(text, rows).rowcount

    def execute(self, text: str, args: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement that calls none of our SQL functions."""
        return self.connection.execute(text, args)

    def retry_busy(self, action: Callable[[], T]) -> T:
        """Repeat an action while another connection holds the lock, for up to `busy_timeout` seconds."""
        end = time.monotonic() + self._busy_timeout
        while True:
            try:
                return action()
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() >= end:
                    raise
            self.check()
            time.sleep(0.001)  # SQLite refuses a lock inside this process at once, without waiting

    def read(self, work: Callable[[SQLiteSession], T]) -> T:
        """Run one query outside of a transaction."""
        try:
            return self.retry_busy(lambda: work(self))
        except (sqlite3.Error, MemoryError, OverflowError) as error:
            raise self.failure(error) from error

    def read_snapshot(self, work: Callable[[SQLiteSession], T]) -> T:
        """Run several queries that see one state of the database."""

        def action() -> T:
            self.connection.execute("BEGIN")
            try:
                return work(self)
            finally:
                self.rollback()

        return self.read(lambda _: action())

    def write(self, work: Callable[[SQLiteSession], T]) -> T:
        """Run statements in a transaction of their own: all of them are durable on return, or none is."""
        committing = False
        try:
            self.begin()
            result = work(self)
            self.check()
            committing = True
            self.commit()
        except (sqlite3.Error, MemoryError, OverflowError) as error:
            self.rollback()
            raise self.failure(error, committing=committing) from error
        except BaseException:
            self.rollback()
            raise
        return result

    def begin(self) -> None:
        """Begin a transaction that may write."""
        self.retry_busy(lambda: self.connection.execute("BEGIN IMMEDIATE"))

    def commit(self) -> None:
        """Commit; on an error the transaction may still be open."""
        self.retry_busy(lambda: self.connection.execute("COMMIT"))

    def rollback(self) -> None:
        """Roll back the open transaction, if there is one."""
        # SQLite rolls back by itself when the disk is full, on an interrupt and on some other errors.
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def run_part(self, work: Callable[[SQLiteSession], T], *, undo: bool) -> T:
        """Run statements of the open transaction; with `undo`, a failure undoes them alone."""
        if not self.connection.in_transaction:
            raise TransactionError("the transaction was rolled back by an earlier failure")
        try:
            if not undo:
                return work(self)
            self.connection.execute("SAVEPOINT isthmus_part")
            try:
                result = work(self)
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK TO isthmus_part")
                    self.connection.execute("RELEASE isthmus_part")
                raise
            self.connection.execute("RELEASE isthmus_part")
        except (sqlite3.Error, MemoryError, OverflowError) as error:
            raise self.failure(error) from error
        return result

    def failure(self, error: Exception, *, committing: bool = False) -> IsthmusError:
        """Return the isthmus error for one of the driver's.

        `committing` says that COMMIT failed, after which the outcome may be unknown.
        """
        if is_interrupt(error) and self.job is not None and self.job.cancelled:
            return Stopped()
        return translate(error, self.label, committing=committing)
