"""SQLAlchemy's errors, and those of the drivers below it, in isthmus's tree."""

from __future__ import annotations

import contextlib
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

# MySQL's and MariaDB's error numbers, and SQLSTATEs; both stand in the driver's error.
_AGAIN = {1213, 1020, "40001", "40P01"}
_ACCESS = {1044, 1045, 1049, 1142, 1143, 1227, 1698, "28000", "28P01", "3D000", "42501"}
_NO_TABLE = {1054, 1146, "42P01", "42703", "42S02", "42S22"}
_WAITED = {1205, 1317, 1969, 3024, "55P03", "57014"}
_NO_CONNECTION = {2002, 2003, 2005, "08001"}
_FULL = {1040, 1203, 1226, "53300"}
_NOT_NOW = {1021, 1114, 1290, 1836, "25006", "53100", "53200", "57P03"}
_GONE = {1053, 1077, 1079, 1927, 2006, 2013, 2055, "08003", "08006", "08S01", "57P01", "57P02"}
_SQLITE_BUSY = (
    "database is locked",
    "database table is locked",
    "disk I/O error",
    "database or disk is full",
)


@contextlib.contextmanager
def translate_errors(what: str, *, commits: bool = False) -> Iterator[None]:
    """Raise isthmus's error for one of SQLAlchemy's or its driver's, the cause chained.

    Until the commit is sent nothing is done, so that only a lost answer to it leaves doubt.
    """
    try:
        yield
    # Drivers raise classes of their own that SQLAlchemy does not wrap, above all while connecting.
    except Exception as error:
        if not _is_foreign(error):
            raise
        raise translate(error, what, commits=commits) from error


def _is_foreign(error: Exception) -> bool:
    """Return whether an error comes from SQLAlchemy, a driver or the network, and not from our own code."""
    if isinstance(error, IsthmusError):  # some of ours are an OSError, too
        return False
    if isinstance(error, (exc.SQLAlchemyError, OSError, EOFError)):
        return True
    return type(error).__module__.partition(".")[0] not in {"builtins", "isthmus"}


def translate(error: BaseException, what: str, *, commits: bool = False) -> IsthmusError:
    """Return isthmus's error for one of SQLAlchemy's, a driver's or the operating system's."""
    said = f"{what}: {_first_line(error.orig if isinstance(error, exc.DBAPIError) else error)}"
    lost = Applied.MAYBE if commits else Applied.NO
    match error:
        case exc.TimeoutError():
            return PoolTimeoutError(
                f"{what}: no connection became free in time; raise pool.size or pool.timeout"
            )
        case exc.PendingRollbackError() | exc.ResourceClosedError():
            return TransactionError(f"{said}; the transaction is lost")
        case exc.ArgumentError():
            return ConfigError(said)
    by_code = _by_code(_codes(error), said, lost)
    if by_code is not None:
        return by_code
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return UnavailableError(said, applied=lost)
    if any(busy in said for busy in _SQLITE_BUSY):
        return UnavailableError(said)
    if "no such table" in said or "no such column" in said:
        return ConfigError(said)
    if isinstance(error, (OSError, EOFError)):
        return UnavailableError(said, applied=lost) if commits else ConnectError(said)
    return UnexpectedError(said, applied=lost)


def _by_code(codes: set[int | str], said: str, lost: Applied) -> IsthmusError | None:
    if codes & _AGAIN:
        return SerializationError(said)
    if codes & _ACCESS:
        return AccessError(said)
    if codes & _NO_TABLE:
        return ConfigError(said)
    if codes & _WAITED:
        return DeadlineError(said)
    if codes & _NO_CONNECTION:
        return ConnectError(said)
    if codes & _FULL:
        return RateLimitedError(said)
    if codes & _NOT_NOW:
        return UnavailableError(said)
    if codes & _GONE:
        return UnavailableError(said, applied=lost)
    return None


def _codes(error: BaseException) -> set[int | str]:
    """Return the numbers and SQLSTATEs of an error and of what led to it.

    A deadlock's victim has lost its savepoints with the transaction, so that going back to one
    fails in turn: what happened stands in the error before.
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


def _first_line(error: object) -> str:
    # SQLAlchemy appends the statement and its values; those stay out of messages.
    return (str(error) or type(error).__name__).split("\n", 1)[0][:300]
