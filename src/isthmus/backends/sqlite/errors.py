"""SQLite's result codes as isthmus errors: each has its class, and its message says how to fix it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from isthmus.errors import (
    AccessError,
    Applied,
    ClosedError,
    ConfigError,
    ConnectError,
    InvalidRecordError,
    IsthmusError,
    UnavailableError,
    UnexpectedError,
)


class _Failure(NamedTuple):
    """The class of an error, advice for its message, and whether repeating helps (None: the class says)."""

    error: type[IsthmusError]
    advice: str = ""
    transient: bool | None = None

    def build(self, path: str, text: str) -> IsthmusError:
        """Return the error for SQLite's message about a file."""
        message = f"{path}: {text}: {self.advice}" if self.advice else f"{path}: {text}"
        if self.error is InvalidRecordError:
            return InvalidRecordError(message, path="data")
        return self.error(message, transient=self.transient)


_BUSY = _Failure(UnavailableError, "another process holds the file's lock; try again, or raise busy_timeout")
_DENIED = _Failure(AccessError, "check the permissions of the file and of its folder")
_IO = _Failure(UnavailableError, "the disk or the network share failed")
_NO_MEMORY = _Failure(UnavailableError, "use smaller batches or pages")
_NOT_A_DATABASE = _Failure(ConnectError, "the file is no SQLite database; give another path", transient=False)
_TOO_BIG = _Failure(InvalidRecordError, "a record has at most 900,000,000 bytes")
_UNEXPECTED = _Failure(UnexpectedError)

_BY_CODE = {
    sqlite3.SQLITE_ERROR: _UNEXPECTED,
    sqlite3.SQLITE_INTERNAL: _UNEXPECTED,
    sqlite3.SQLITE_PERM: _DENIED,
    sqlite3.SQLITE_ABORT: _UNEXPECTED,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_NOMEM: _NO_MEMORY,
    sqlite3.SQLITE_READONLY: _Failure(
        AccessError, "this process needs write permission on the file and on its folder"
    ),
    sqlite3.SQLITE_INTERRUPT: _Failure(UnavailableError, "the statement was stopped"),
    sqlite3.SQLITE_IOERR: _IO,
    sqlite3.SQLITE_CORRUPT: _Failure(
        UnexpectedError,
        "the file is damaged; restore a copy, or run sqlite3's .recover on it",
        transient=False,
    ),
    sqlite3.SQLITE_NOTFOUND: _UNEXPECTED,
    sqlite3.SQLITE_FULL: _Failure(
        UnavailableError, "free some disk space and try again; nothing was written", transient=False
    ),
    sqlite3.SQLITE_CANTOPEN: _DENIED,  # `_cannot_open` tells the other causes
    sqlite3.SQLITE_PROTOCOL: _BUSY,
    sqlite3.SQLITE_EMPTY: _UNEXPECTED,
    sqlite3.SQLITE_SCHEMA: _BUSY,
    sqlite3.SQLITE_TOOBIG: _TOO_BIG,
    sqlite3.SQLITE_CONSTRAINT: _UNEXPECTED,
    sqlite3.SQLITE_MISMATCH: _UNEXPECTED,
    sqlite3.SQLITE_MISUSE: _UNEXPECTED,
    sqlite3.SQLITE_NOLFS: _IO,
    sqlite3.SQLITE_AUTH: _DENIED,
    sqlite3.SQLITE_FORMAT: _NOT_A_DATABASE,
    sqlite3.SQLITE_RANGE: _UNEXPECTED,
    sqlite3.SQLITE_NOTADB: _NOT_A_DATABASE,
}


def primary_code(error: BaseException) -> int | None:
    """Return the primary result code of a driver error; extended codes hold it in their low byte."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_busy(error: BaseException) -> bool:
    """Return whether another connection holds a lock that it will release."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_interrupt(error: BaseException) -> bool:
    """Return whether the statement was stopped by `Connection.interrupt`."""
    return primary_code(error) == sqlite3.SQLITE_INTERRUPT


def is_missing_table(error: BaseException) -> bool:
    """Return whether the statement names a table that does not exist."""
    return primary_code(error) == sqlite3.SQLITE_ERROR and str(error).startswith("no such table: ")


_LACKING = ("no such collation sequence: ", "unknown function: ")
"""What a program defines in its own connections only."""


def translate(error: Exception, path: str, *, committing: bool = False) -> IsthmusError:
    """Return the isthmus error for one that the driver raised.

    `committing` says that it came from COMMIT: after an I/O error there the outcome is unknown.
    """
    if isinstance(error, IsthmusError):
        return error
    code, text = primary_code(error), str(error)
    if code is None:
        return _translate_without_code(error, path)
    if code == sqlite3.SQLITE_CANTOPEN:
        return _cannot_open(path, text)
    if text.startswith(_LACKING):
        return ConfigError(f"{path}: {text}, which the program that made the table has")
    if committing and code == sqlite3.SQLITE_CONSTRAINT:  # one of the table's that is deferred
        return InvalidRecordError(f"{path}: {text}", path="data")
    translated = _BY_CODE.get(code, _UNEXPECTED).build(path, text)
    if committing and code == sqlite3.SQLITE_IOERR:
        translated.applied = Applied.MAYBE
    return translated


def _translate_without_code(error: Exception, path: str) -> IsthmusError:
    text = str(error)
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in text:
        return ClosedError(f"the connection to {path} is closed")
    if isinstance(error, sqlite3.DataError | OverflowError) or "too big" in text:
        return _TOO_BIG.build(path, text)
    if isinstance(error, MemoryError):
        return _NO_MEMORY.build(path, text or "out of memory")
    return _UNEXPECTED.build(path, f"{type(error).__name__}: {text}")


def _cannot_open(path: str, text: str) -> IsthmusError:
    folder, advice = Path(path).parent, None
    try:
        if not folder.exists():
            advice = f"the folder {folder} does not exist; create it"
        elif Path(path).is_dir():
            advice = "this is a folder; give a file"
    except OSError:  # what cannot be looked at is a matter of permissions, too
        advice = None
    failure = _DENIED if advice is None else _Failure(ConnectError, advice, transient=False)
    return failure.build(path, text)


def is_missing_column(error: sqlite3.OperationalError) -> bool:
    """Return whether a statement names a column that the table does not have any more, or not yet."""
    return "no such column" in str(error) or "has no column named" in str(error)
