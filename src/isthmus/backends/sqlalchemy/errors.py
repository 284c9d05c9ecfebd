"""Errors of SQLAlchemy and of the drivers below it as isthmus errors."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Iterator

from isthmus.errors import (
    AccessError,
    Applied,
    ConfigError,
    ConnectError,
    DeadlineError,
    IsthmusError,
    PoolTimeoutError,
    RateLimitedError,
    SerializationError,
    TransactionError,
    UnavailableError,
    UnexpectedError,
)
from sqlalchemy import exc

# Error numbers of MySQL and MariaDB, and SQLSTATEs; the driver's error holds both.
_AGAIN = {1213, 1020, 1412, "40001", "40P01"}
_ACCESS = {1044, 1045, 1049, 1142, 1143, 1227, 1698, "28000", "28P01", "3D000", "42501"}
_ABORTED = {"25P02"}
_NO_TABLE = {1146, "42P01", "42S02"}
_NO_COLUMN = {1054, "42703", "42S22"}
_LOCK_WAIT = 1205
_WAITED = {_LOCK_WAIT, 1317, 1969, 3024, "55P03", "57014"}
_NO_CONNECTION = {2002, 2003, 2005, "08001"}
_FULL = {1040, 1203, 1226, "53300"}
_NOT_NOW = {1021, 1114, 1290, 1836, "25006", "53100", "53200", "57P03"}
_GONE = {1053, 1077, 1079, 1927, 2006, 2013, 2055, "08003", "08006", "08S01", "57P01", "57P02"}
_SQLITE_NO_COLUMN = ("no such column", "has no column named")
_SQLITE_BUSY = (
    "database is locked",
    "database table is locked",
    "disk I/O error",
    "database or disk is full",
)


class MissingTableError(ConfigError):
    """A statement names a collection's table, which does not exist."""


class StaleTableError(ConfigError):
    """A statement names a column that the collection's table does not have: see `schema.table_of`."""


@contextlib.contextmanager
def translate_errors(action: str, *, commits: bool = False) -> Iterator[None]:
    """Raise the isthmus error for one of SQLAlchemy or its driver, with the cause chained.

    `action` starts the message. Nothing is applied before the commit, so that only a lost response
    to that (`commits`) leaves the outcome unknown.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        _drop_references(error)
        raise
    # Drivers raise classes of their own that SQLAlchemy does not wrap, above all while connecting.
    except Exception as error:
        if not _is_foreign(error):
            raise
        failure = translate(error, action, commits=commits)
        if _names_missing_table(error):
            failure = MissingTableError(str(failure))
        elif _names_missing_column(error):
            failure = StaleTableError(str(failure))
        raise failure from error


def _drop_references(error: BaseException) -> None:
    """Clear the local variables of the frames that a cancellation ended.

    SQLAlchemy closes the connection of a cancelled statement. With a cursor among those variables SQLite
    keeps the closed connection and its lock, for as long as somebody holds the error or its task.
    """
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__


def is_lock_timeout(error: BaseException) -> bool:
    """Return whether MySQL or MariaDB did not grant a lock in time; it has undone the statement only."""
    return _LOCK_WAIT in codes_of(error)


def _is_foreign(error: Exception) -> bool:
    """Return whether an error comes from SQLAlchemy, a driver or the network, not from our own code."""
    if isinstance(error, IsthmusError):  # some of ours are OSErrors, too
        return False
    if isinstance(error, (exc.SQLAlchemyError, OSError, EOFError)):
        return True
    return type(error).__module__.partition(".")[0] not in {"builtins", "isthmus"}


def _names_missing_table(error: Exception) -> bool:
    return bool(codes_of(error) & _NO_TABLE) or "no such table" in first_line(getattr(error, "orig", error))


def _names_missing_column(error: Exception) -> bool:
    message = first_line(getattr(error, "orig", error))
    return bool(codes_of(error) & _NO_COLUMN) or any(text in message for text in _SQLITE_NO_COLUMN)


def translate(error: BaseException, action: str, *, commits: bool = False) -> IsthmusError:
    """Return the isthmus error for one of SQLAlchemy, a driver or the operating system."""
    message = f"{action}: {first_line(error.orig if isinstance(error, exc.DBAPIError) else error)}"
    lost = Applied.MAYBE if commits else Applied.NO
    match error:
        case exc.TimeoutError():
            return PoolTimeoutError(
                f"{action}: no connection became free in time; raise pool.size or pool.timeout"
            )
        case exc.PendingRollbackError() | exc.ResourceClosedError():
            return TransactionError(f"{message}; the transaction is lost")
        case exc.ArgumentError():
            return ConfigError(message)
    by_code = _by_code(codes_of(error), message, lost)
    if by_code is not None:
        return by_code
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return UnavailableError(message, applied=lost)
    if any(busy in message for busy in _SQLITE_BUSY):
        return UnavailableError(message)
    if "no such table" in message or any(text in message for text in _SQLITE_NO_COLUMN):
        return ConfigError(message)
    # psycopg has no SQLSTATE for a connection that it could not open, or lost.
    lost_connection = (
        isinstance(error, exc.OperationalError)
        and type(error.orig).__module__.startswith("psycopg")
        and not codes_of(error)
    )
    if lost_connection or isinstance(error, (OSError, EOFError)):
        return UnavailableError(message, applied=lost) if commits else ConnectError(message)
    return UnexpectedError(message, applied=lost)


def _by_code(codes: set[int | str], message: str, lost: Applied) -> IsthmusError | None:
    if codes & _AGAIN:
        return SerializationError(message)
    if codes & _ABORTED:
        return TransactionError(f"{message}; an error was caught inside: wrap what may fail in a savepoint")
    if codes & _ACCESS:
        return AccessError(message)
    if codes & (_NO_TABLE | _NO_COLUMN):
        return ConfigError(message)
    if codes & _WAITED:
        return DeadlineError(message)
    if codes & _NO_CONNECTION:
        return ConnectError(message)
    if codes & _FULL:
        return RateLimitedError(message)
    if codes & _NOT_NOW:
        return UnavailableError(message)
    if codes & _GONE:
        return UnavailableError(message, applied=lost)
    return None


def codes_of(error: BaseException) -> set[int | str]:
    """Return the numbers and SQLSTATEs of an error and of its causes.

    A deadlock's victim has lost its savepoints with the transaction, so that rolling back to one
    fails in turn: the reason is in the error before.
    """
    codes: set[int | str] = set()
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        candidate = waiting.pop()
        if candidate is None or candidate in seen:
            continue
        seen.append(candidate)
        if candidate.args and isinstance(candidate.args[0], int) and not isinstance(candidate, OSError):
            codes.add(candidate.args[0])
        state = getattr(candidate, "sqlstate", None) or getattr(candidate, "pgcode", None)
        if isinstance(state, str):
            codes.add(state)
        waiting += [candidate.__cause__, candidate.__context__, getattr(candidate, "orig", None)]
    return codes


def first_line(error: object) -> str:
    """Return the first line of an error's message, at most 300 characters."""
    # SQLAlchemy appends the statement and its values, which must not be in messages.
    return (str(error) or type(error).__name__).split("\n", 1)[0][:300]
