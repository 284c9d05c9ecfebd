"""The exit code and the message of each error that can end a command."""

from __future__ import annotations

import enum
import errno

from isthmus import (
    AccessError,
    BatchError,
    ConfigError,
    DeadlineError,
    IsthmusError,
    RecordError,
    UnavailableError,
    UsageError,
)


class ExitCode(enum.IntEnum):
    """The exit codes of the command line."""

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
    ExitCode.OK: "success; the answer is yes",
    ExitCode.NO: "success; the answer is no: not found, the sides differ, the doctor found a problem",
    ExitCode.USAGE: "an invalid argument, filter or query",
    ExitCode.CONFIG: "an invalid setting or URL, or a missing extra",
    ExitCode.UNREACHABLE: "the store is unreachable or did not respond in time",
    ExitCode.ACCESS: "invalid credentials or a missing privilege",
    ExitCode.RECORDS: "records were rejected: invalid, existing, changed concurrently, or an unreadable line",
    ExitCode.STORE: "any other failure of the store, or an operation it does not support",
    ExitCode.FILES: "a local file cannot be read or written, for example because the disk is full",
    ExitCode.BUG: "a bug in isthmus; --debug prints the traceback",
    ExitCode.INTERRUPTED: "Ctrl-C",
    ExitCode.PIPE: "the reader of the output closed the pipe",
}


class CommandError(Exception):
    """The failure of a command that is not an error of the library: a message and an exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


def choose_exit_code(error: BaseException) -> ExitCode:
    """Return the exit code of a command that this error ended."""
    match error:
        case CommandError():
            return error.code
        case UnavailableError() | DeadlineError():
            return ExitCode.UNREACHABLE
        case AccessError():
            return ExitCode.ACCESS
        case ConfigError():
            return ExitCode.CONFIG
        case UsageError():
            return ExitCode.USAGE
        case RecordError():
            return ExitCode.RECORDS
        case BatchError():
            # The first item whose failure is not about its record decides.
            for outcome in error.outcomes:
                if isinstance(outcome, IsthmusError) and not isinstance(outcome, RecordError):
                    return choose_exit_code(outcome)
            return ExitCode.RECORDS
        case IsthmusError():
            return ExitCode.STORE
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case BrokenPipeError():
            return ExitCode.PIPE
        case OSError():
            return ExitCode.FILES
    return ExitCode.BUG


_OPTIONS = {
    "set encoding=": "set --encoding, such as latin-1",
    "set header=": "use --no-header",
    "set zone= to": "set --zone to",
    "such as zone='UTC'": "such as --zone UTC",
    "round=True cuts it": "--round cuts it",
    "set types= to read": "set --types to read",
}


_REASONS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EBADF: "a standard stream that the command needs is closed",
}


def describe_error(error: BaseException) -> str:
    """Return the message to print; a single line, except for a filter error with its caret."""
    match error:
        case OSError() if not isinstance(error, IsthmusError):
            reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
            return f"{error.filename}: {reason}" if error.filename else reason
        case KeyboardInterrupt():
            return "interrupted"
        case Exception() if choose_exit_code(error) is ExitCode.BUG:
            return f"unexpected {type(error).__name__}: {error} ({MEANINGS[ExitCode.BUG]})"
    return name_options(str(error)) or type(error).__name__


def name_options(message: str) -> str:
    """Return a message of the library about files, with the options of commands for its settings."""
    for setting, option in _OPTIONS.items():
        message = message.replace(setting, option)
    return message
