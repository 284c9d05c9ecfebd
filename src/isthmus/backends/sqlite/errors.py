"""SQLite's error codes as isthmus errors: every one has its class, and says what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from isthmus.errors import (
    AccessError,
    Applied,
    ClosedError,
    ConnectError,
    InvalidRecordError,
    IsthmusError,
    UnavailableError,
    UnexpectedError,
)

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_Make = Callable[[str, str], IsthmusError]


def primary_code(error: BaseException) -> int | None:
    """Return the primary result code of a driver error; extended codes hold it in their low byte."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_busy(error: BaseException) -> bool:
    """Return whether another connection holds a lock that will pass."""
    return primary_code(error) in BUSY


def is_interrupt(error: BaseException) -> bool:
    """Return whether the statement was stopped by us."""
    return primary_code(error) == sqlite3.SQLITE_INTERRUPT


def translate(error: Exception, path: str, *, committing: bool = False) -> IsthmusError:
    """Return the isthmus error for what the driver raised.

    `committing` says that the error came from COMMIT: after an I/O error there nobody knows.
    """
    if isinstance(error, IsthmusError):
        return error
    code = primary_code(error)
    if code is None:
        return _without_code(error, path)
    make = _BY_CODE.get(code, _unexpected)
    known = make(path, str(error))
    if committing and code == sqlite3.SQLITE_IOERR:
        known.applied = Applied.MAYBE
    return known


def _without_code(error: Exception, path: str) -> IsthmusError:
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return ClosedError(f"the connection to {path} is closed")
    if isinstance(error, sqlite3.DataError | OverflowError) or "too big" in str(error):
        return _too_big(path, str(error))
    if isinstance(error, MemoryError):
        return _out_of_memory(path, str(error))
    return _unexpected(path, f"{type(error).__name__}: {error}")


def _busy(path: str, text: str) -> IsthmusError:
    return UnavailableError(
        f"{path}: {text}: another process holds the file's lock; try again, or raise busy_timeout"
    )


def _full(path: str, text: str) -> IsthmusError:
    return UnavailableError(
        f"{path}: {text}: free some disk space and try again; nothing was written", transient=False
    )


def _readonly(path: str, text: str) -> IsthmusError:
    return AccessError(f"{path}: {text}: this process needs write permission on the file and on its folder")


def _denied(path: str, text: str) -> IsthmusError:
    return AccessError(f"{path}: {text}: check the permissions of the file and of its folder")


def _cannot_open(path: str, text: str) -> IsthmusError:
    folder = Path(path).parent
    try:
        if not folder.exists():
            return ConnectError(
                f"{path}: {text}: the folder {folder} does not exist; create it", transient=False
            )
        if Path(path).is_dir():
            return ConnectError(f"{path}: {text}: this is a folder; give a file", transient=False)
    except OSError:
        return _denied(path, text)
    return _denied(path, text)


def _not_a_database(path: str, text: str) -> IsthmusError:
    return ConnectError(f"{path}: {text}: the file is no SQLite database; give another path", transient=False)


def _corrupt(path: str, text: str) -> IsthmusError:
    return UnexpectedError(
        f"{path}: {text}: the file is damaged; restore a copy, or run sqlite3's .recover on it",
        transient=False,
    )


def _io(path: str, text: str) -> IsthmusError:
    return UnavailableError(f"{path}: {text}: the disk or the network share failed")


def _out_of_memory(path: str, text: str) -> IsthmusError:
    return UnavailableError(f"{path}: {text or 'out of memory'}: use smaller batches or pages")


def _too_big(path: str, text: str) -> IsthmusError:
    return InvalidRecordError(f"{path}: {text}: a record has at most 900,000,000 bytes", path="data")


def _stopped(path: str, text: str) -> IsthmusError:
    return UnavailableError(f"{path}: {text}: the statement was stopped")


def _unexpected(path: str, text: str) -> IsthmusError:
    return UnexpectedError(f"{path}: {text}")


_BY_CODE: dict[int, _Make] = {
    sqlite3.SQLITE_ERROR: _unexpected,
    sqlite3.SQLITE_INTERNAL: _unexpected,
    sqlite3.SQLITE_PERM: _denied,
    sqlite3.SQLITE_ABORT: _unexpected,
    sqlite3.SQLITE_BUSY: _busy,
    sqlite3.SQLITE_LOCKED: _busy,
    sqlite3.SQLITE_NOMEM: _out_of_memory,
    sqlite3.SQLITE_READONLY: _readonly,
    sqlite3.SQLITE_INTERRUPT: _stopped,
    sqlite3.SQLITE_IOERR: _io,
    sqlite3.SQLITE_CORRUPT: _corrupt,
    sqlite3.SQLITE_NOTFOUND: _unexpected,
    sqlite3.SQLITE_FULL: _full,
    sqlite3.SQLITE_CANTOPEN: _cannot_open,
    sqlite3.SQLITE_PROTOCOL: _busy,
    sqlite3.SQLITE_EMPTY: _unexpected,
    sqlite3.SQLITE_SCHEMA: _busy,
    sqlite3.SQLITE_TOOBIG: _too_big,
    sqlite3.SQLITE_CONSTRAINT: _unexpected,
    sqlite3.SQLITE_MISMATCH: _unexpected,
    sqlite3.SQLITE_MISUSE: _unexpected,
    sqlite3.SQLITE_NOLFS: _io,
    sqlite3.SQLITE_AUTH: _denied,
    sqlite3.SQLITE_FORMAT: _not_a_database,
    sqlite3.SQLITE_RANGE: _unexpected,
    sqlite3.SQLITE_NOTADB: _not_a_database,
}
