"""SQLAlchemy's errors, and those of the drivers below it, in isthmus's tree."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import exc

from isthmus.errors import (
    AccessError,
    Applied,
    ConfigError,
    ConnectError,
    DeadlineError,
    IsthmusError,
    PoolTimeoutError,
    SerializationError,
    UnavailableError,
    UnexpectedError,
)

# MySQL's and MariaDB's error numbers, and SQLSTATEs; both stand in the driver's error.
_ACCESS = {1044, 1045, 1142, 1143, 1227, "28000", "28P01", "42501"}
_UNKNOWN_PLACE = {1049, "3D000"}
_AGAIN = {1213, "40001", "40P01"}
_WAITED = {1205, 3024, 1969, "55P03", "57014"}
_NO_CONNECTION = {2002, 2003, 2005, "08001", "08006"}
_FULL = {1040, 1203, "53300"}
_GONE = {2006, 2013, 1053, 1927, "57P01", "57P02", "57P03", "08003"}


@contextlib.contextmanager
def translated(what: str, *, writes: bool = False) -> Iterator[None]:
    """Raise isthmus's error for one of SQLAlchemy's, the cause chained."""
    try:
        yield
    except (exc.SQLAlchemyError, OSError) as error:
        raise translation(error, what, writes=writes) from error


def translation(error: BaseException, what: str, *, writes: bool = False) -> IsthmusError:
    """Return isthmus's error for one of SQLAlchemy's or the operating system's."""
    lost = Applied.MAYBE if writes else Applied.NO
    match error:
        case exc.TimeoutError():
            return PoolTimeoutError(
                f"{what}: no connection became free in time; raise pool.size or pool.timeout"
            )
        case exc.DBAPIError():
            return _driver(error, what, lost)
        case exc.ArgumentError() | exc.NoSuchModuleError() | exc.InvalidRequestError():
            return ConfigError(f"{what}: {_first_line(error)}")
        case OSError():
            return ConnectError(f"{what}: {error}")
    return UnexpectedError(f"{what}: {_first_line(error)}", applied=lost)


def _driver(error: exc.DBAPIError, what: str, lost: Applied) -> IsthmusError:
    codes = _codes(error)
    said = f"{what}: {_first_line(error.orig)}"
    if codes & _ACCESS:
        return AccessError(said)
    if codes & _UNKNOWN_PLACE:
        return ConfigError(said)
    if codes & _AGAIN:
        return SerializationError(said)
    if codes & _WAITED:
        return DeadlineError(said)
    if codes & _NO_CONNECTION:
        return ConnectError(said)
    if codes & _FULL:
        return UnavailableError(said)
    if error.connection_invalidated or codes & _GONE:
        return UnavailableError(said, applied=lost)
    if "database is locked" in said:  # SQLite
        return UnavailableError(said)
    return UnexpectedError(said, applied=Applied.NO)


def _codes(error: exc.DBAPIError) -> set[int | str]:
    original = error.orig
    codes: set[int | str] = set()
    for candidate in (original, getattr(original, "__cause__", None)):
        arguments = getattr(candidate, "args", ())
        if arguments and isinstance(arguments[0], int):
            codes.add(arguments[0])
        state = getattr(candidate, "sqlstate", None) or getattr(candidate, "pgcode", None)
        if isinstance(state, str):
            codes.add(state)
    return codes


def _first_line(error: object) -> str:
    # SQLAlchemy appends the statement and its values; those stay out of messages.
    return str(error).split("\n", 1)[0][:300]
