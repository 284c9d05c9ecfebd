"""Exit codes, and which error gives which."""

from __future__ import annotations

import enum
import errno

from isthmus import (
    AccessError,
    BatchError,
    ConfigError,
    IsthmusError,
    RecordError,
    StoreError,
    UnsupportedError,
    UsageError,
)
from isthmus.errors import DeadlineError, TransactionError, UnavailableError


class Code(enum.IntEnum):
    """What the command line exits with."""

    OK = 0
    NO = 1
    USAGE = 2
    CONFIG = 3
    UNREACHABLE = 4
    ACCESS = 5
    RECORDS = 6
    STORE = 7
    FILES = 8
    BUG = 70
    INTERRUPTED = 130
    PIPE = 141


MEANINGS = {
    Code.OK: "done, and the answer is yes",
    Code.NO: "done, and the answer is no: not found, sides differ, the doctor found something",
    Code.USAGE: "a wrong argument, filter or query",
    Code.CONFIG: "a wrong setting or URL, or an extra that is not installed",
    Code.UNREACHABLE: "the store cannot be reached or did not answer in time",
    Code.ACCESS: "wrong credentials or a missing privilege",
    Code.RECORDS: "some records were refused: invalid, existing, changed since, an unreadable line",
    Code.STORE: "the store failed otherwise, or cannot do what was asked",
    Code.FILES: "a local file cannot be read or written, such as on a full disk",
    Code.BUG: "a fault of isthmus; --debug shows where",
    Code.INTERRUPTED: "Ctrl-C",
    Code.PIPE: "whoever read the output stopped reading",
}


class CommandError(Exception):
    """What a command ends with that is no error of the library: a message and an exit code."""

    def __init__(self, message: str, code: Code) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: BaseException) -> Code:
    """Return the exit code of what ended a command."""
    match error:
        case CommandError():
            return error.code
        case UnavailableError() | DeadlineError():
            return Code.UNREACHABLE
        case AccessError():
            return Code.ACCESS
        case ConfigError():
            return Code.CONFIG
        case UsageError():
            return Code.USAGE
        case RecordError():
            return Code.RECORDS
        case BatchError():
            return _code_of_batch(error)
        case UnsupportedError() | StoreError() | TransactionError() | IsthmusError():
            return Code.STORE
        case KeyboardInterrupt():
            return Code.INTERRUPTED
        case BrokenPipeError():
            return Code.PIPE
        case OSError():
            return Code.FILES
    return Code.BUG


def _code_of_batch(error: BatchError) -> Code:
    """Return the code of the first item that failed for its own sake."""
    for outcome in error.outcomes:
        if isinstance(outcome, IsthmusError) and not isinstance(outcome, RecordError):
            return code_of(outcome)
    return Code.RECORDS


def message_of(error: BaseException) -> str:
    """Return what happened, for people; more than one line only where a place is pointed at."""
    match error:
        case OSError() if not isinstance(error, IsthmusError):
            what = (
                "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
            )
            return f"{error.filename}: {what}" if error.filename else what
        case KeyboardInterrupt():
            return "interrupted"
        case Exception() if code_of(error) is Code.BUG:
            return f"unexpected {type(error).__name__}: {error} (a fault of isthmus; --debug shows where)"
    return str(error) or type(error).__name__
