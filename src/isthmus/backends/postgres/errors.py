"""Maps a driver's errors to isthmus errors: by SQLSTATE, or without one by the kind of failure."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from types import NoneType, TracebackType

from isthmus.backends.postgres.address import Address
from isthmus.errors import (
    AccessError,
    AlreadyExistsError,
    Applied,
    ConfigError,
    ConnectError,
    DeadlineError,
    InvalidRecordError,
    IsthmusError,
    RateLimitedError,
    SerializationError,
    StoreError,
    TransactionError,
    UnavailableError,
    UnexpectedError,
    UnsupportedError,
    UsageError,
)

_Make = Callable[[str, bool], IsthmusError]


def _ambiguous(writing: bool) -> Applied:
    """Return `Applied` for a statement whose response was lost."""
    return Applied.MAYBE if writing else Applied.NO


def _store(kind: type[StoreError], hint: str = "", *, transient: bool | None = None) -> _Make:
    def make(text: str, writing: bool) -> IsthmusError:
        return kind(f"postgres: {text}{hint}", transient=transient)

    return make


def _config(hint: str) -> _Make:
    return lambda text, writing: ConfigError(f"postgres: {text}; {hint}")


def _dependent(text: str, writing: bool) -> IsthmusError:
    # The server's hint is to drop it too.
    lines = [line for line in text.splitlines() if not line.startswith("HINT:")]
    return ConfigError(
        f"postgres: {' '.join(lines)}; drop what depends on it, repeat this, and create that again"
    )


def _transaction(text: str, writing: bool) -> IsthmusError:
    return TransactionError(f"postgres: {text}")


def _serialization(text: str, writing: bool) -> IsthmusError:
    return SerializationError(f"postgres: {text}; run the transaction again")


def _unknown_commit(text: str, writing: bool) -> IsthmusError:
    return UnavailableError(f"postgres: {text}", applied=_ambiguous(writing))


def _constraint(text: str, writing: bool) -> IsthmusError:
    return InvalidRecordError(f"postgres: {text}", path="data")


# Whole codes first, then classes (the first two characters).
_BY_CODE: dict[str, _Make] = {
    "40001": _serialization,
    "40P01": _serialization,
    "40003": _unknown_commit,
    "26000": _serialization,  # in a transaction; elsewhere the pool repeats the call
    "25006": _store(
        UnavailableError, "; the server is read-only: a standby after a failover, or a read-only transaction"
    ),
    "23505": lambda text, writing: AlreadyExistsError(f"postgres: {text}", record_id=None),
    "25P02": _transaction,
    "25P03": _transaction,
    "57014": _store(DeadlineError, "; raise `command_timeout` or the server's statement_timeout"),
    "57P01": _unknown_commit,
    "57P02": _unknown_commit,
    "57P03": _store(UnavailableError),
    "57P05": _unknown_commit,
    "55P03": _store(DeadlineError, "; another transaction holds the lock"),
    "53300": _store(RateLimitedError, "; lower `pool.max_size` or raise the server's max_connections"),
    "42P01": _config("the table was dropped or never created (`create_table`)"),
    "42703": _config("the table has other columns than isthmus creates"),
    "2BP01": _dependent,
    "42501": _store(AccessError, "; grant the privilege to this user, or connect as the owner"),
    "3D000": _store(AccessError, "; check `database`"),
    "3F000": _config("create the schema, or check `schema`"),
    "0A000": lambda text, writing: UnsupportedError(f"postgres: {text}"),
    "54000": _store(UnexpectedError, "; a value is beyond the server's limits"),
}
_BY_CLASS: dict[str, _Make] = {
    "08": _unknown_commit,
    "23": _constraint,  # one that is deferred, at the commit of a transaction
    "25": _transaction,
    "28": _store(AccessError, "; check `user` and `password`"),
    "40": _serialization,
    "53": _store(UnavailableError, "; the server is out of memory, disk or connections"),
    "57": _store(UnavailableError),
    "58": _store(UnavailableError),
    "F0": _store(UnavailableError),
}


def translate(error: BaseException, *, writing: bool) -> IsthmusError | None:
    """Return the isthmus error for a driver's error; None for any other exception.

    `writing`: a write may have reached the server, so if its response was lost the error's `applied`
    is MAYBE.
    """
    if isinstance(error, IsthmusError) or not isinstance(error, Exception):
        return None
    state = sqlstate_of(error)
    text = str(error).strip() or type(error).__name__
    if state:
        make = _BY_CODE.get(state) or _BY_CLASS.get(state[:2])
        return make(text, writing) if make else UnexpectedError(f"postgres: {text} (SQLSTATE {state})")
    if isinstance(error, TimeoutError):
        return DeadlineError(
            "postgres: the statement timed out (`command_timeout`)",
            applied=_ambiguous(writing),
        )
    if isinstance(error, OSError):  # ConnectionError included
        return UnavailableError(f"postgres: the connection broke: {text}", applied=_ambiguous(writing))
    if isinstance(error, AttributeError) and isinstance(getattr(error, "obj", error), NoneType):
        return _translate_dropped(error, writing=writing)
    if type(error).__module__.partition(".")[0] in ("asyncpg", "psycopg"):
        return _without_state(error, text, writing=writing)
    return None


def _translate_dropped(error: AttributeError, *, writing: bool) -> IsthmusError | None:
    """Return the error for a connection that was terminated between two steps of one call of asyncpg."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    if module.partition(".")[0] != "asyncpg":
        return None
    return UnavailableError("postgres: the connection was dropped", applied=_ambiguous(writing))


def _without_state(error: Exception, text: str, *, writing: bool) -> IsthmusError:
    """Return the error for one that the driver itself raised, known by the names of its classes."""
    names = {base.__name__ for base in type(error).__mro__}
    if names & {
        "ConnectionDoesNotExistError",
        "ConnectionFailureError",
        "OperationalError",
        "TargetServerAttributeNotMatched",
    }:
        return UnavailableError(f"postgres: the connection broke: {text}", applied=_ambiguous(writing))
    if "connection is closed" in text or "connection was closed" in text:
        return UnavailableError(f"postgres: {text}", applied=_ambiguous(writing))
    if "cannot switch to state" in text:
        # asyncpg 0.32: the server was killed while it sent a response, and the connection was used for
        # the next call before asyncpg noticed that it is closed.
        return UnavailableError(f"postgres: the connection broke: {text}", applied=_ambiguous(writing))
    if "ClientConfigurationError" in names:
        return ConfigError(f"postgres: {text}")
    if "another operation is in progress" in text:
        return UsageError("postgres: two tasks use one connection at once; each needs its own")
    return UnexpectedError(f"postgres: {text}", applied=_ambiguous(writing))


class ErrorMapping:
    """A block out of which a driver's error is raised as the isthmus error, chained to the driver's."""

    __slots__ = ("_writing",)

    def __init__(self, *, writing: bool = False) -> None:
        self._writing = writing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            mapped = translate(error, writing=self._writing)
            if mapped is not None:
                raise mapped from error


READING = ErrorMapping()
WRITING = ErrorMapping(writing=True)


# The server is shutting down (57P0x) or the connection to it broke (08).
_FAILOVER = ("57P01", "57P02", "57P03", "08")
_READ_ONLY = "25006"
_UNDEFINED_TABLE = "42P01"
_UNDEFINED_COLUMN = "42703"
# No such operator, a cast that is not implicit, none at all, and a text that is none of the type.
_CHANGED_TYPE = ("42883", "42804", "42846", "22P02")
_UNIQUE_VIOLATION = "23505"
_DEADLOCK = "40P01"
_CHECK_VIOLATION = "23514"
# The names that `unique.unique_name` gives.
_UNIQUE_NAME = re.compile("_unique(check)?_[0-9a-f]{12}$")
_UNDEFINED_STATEMENT = "26000"
_STALE_PLAN = frozenset({"OutdatedSchemaCacheError", "InvalidCachedStatementError"})


def sqlstate_of(error: BaseException) -> str:
    """Return the SQLSTATE of an error or of what caused it, else an empty text."""
    cause: BaseException | None = error
    while cause is not None:
        state = getattr(cause, "sqlstate", None)
        if state:
            return str(state)
        cause = cause.__cause__
    return ""


def is_client_side(error: BaseException) -> bool:
    """Return whether the driver raised the error, without an answer of the server."""
    is_answer = getattr(getattr(error, "diag", error), "severity", None) is not None
    return not (is_answer or isinstance(error, IsthmusError))


def is_failover(error: BaseException) -> bool:
    """Return whether the server has gone away or is about to."""
    return sqlstate_of(error).startswith(_FAILOVER)


def is_read_only(error: BaseException) -> bool:
    """Return whether the server refused a write as read-only."""
    return sqlstate_of(error) == _READ_ONLY


def is_unique_violation(error: BaseException) -> bool:
    """Return whether a statement failed because an id is taken."""
    return sqlstate_of(error) == _UNIQUE_VIOLATION and not is_field_violation(error)


def is_deadlock(error: BaseException) -> bool:
    """Return whether the server ended a circle of waits by undoing a statement."""
    return sqlstate_of(error) == _DEADLOCK


def is_field_violation(error: BaseException) -> bool:
    """Return whether a statement violated the index or the constraint of a unique field."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "sqlstate", None) in (_UNIQUE_VIOLATION, _CHECK_VIOLATION):
            diagnostics = getattr(cause, "diag", None)
            name = getattr(cause, "constraint_name", None) or getattr(diagnostics, "constraint_name", None)
            return _UNIQUE_NAME.search(name or "") is not None
        cause = cause.__cause__
    return False


def is_undefined_table(error: BaseException) -> bool:
    """Return whether a statement failed because its table does not exist."""
    return sqlstate_of(error) == _UNDEFINED_TABLE


def is_changed_type(error: BaseException) -> bool:
    """Return whether a statement failed because a column is of another type than it was."""
    return sqlstate_of(error) in _CHANGED_TYPE


def is_undefined_column(error: BaseException) -> bool:
    """Return whether a statement failed because a column does not exist."""
    return sqlstate_of(error) == _UNDEFINED_COLUMN


def is_stale_plan(error: BaseException) -> bool:
    """Return whether the statements that connections have prepared are of no use any more.

    A table changed under them, or `DEALLOCATE ALL` or `DISCARD ALL` dropped them.
    """
    if sqlstate_of(error) == _UNDEFINED_STATEMENT:
        return True
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ in _STALE_PLAN or "cached plan must not change" in str(cause):
            return True
        cause = cause.__cause__
    return False


def connect_error(error: Exception, address: Address | None = None) -> IsthmusError:
    """Return the error for a caller for whom no connection to `address` could be opened."""
    if isinstance(error, IsthmusError):
        copied = copy.copy(error)  # each waiter raises an object of its own
        copied.__cause__ = error.__cause__
        return copied
    failed = _map_connect_error(error, "the server" if address is None else _place(address))
    failed.__cause__ = error
    return failed


def _place(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# psycopg raises libpq's messages while connecting without their SQLSTATE.
_STATES_BY_TEXT = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    "too many clients": "53300",
    "remaining connection slots are reserved": "53300",
    "the database system is": "57P03",
    "is not currently accepting connections": "57P03",
}


def _state_while_connecting(error: Exception, text: str) -> str:
    if state := sqlstate_of(error):
        return state
    if "does not exist" in text:
        return "28000" if 'role "' in text else "3D000" if "database" in text else ""
    return next((state for words, state in _STATES_BY_TEXT.items() if words in text), "")


def _map_connect_error(error: Exception, server: str) -> IsthmusError:
    text = str(error).strip() or type(error).__name__
    state = _state_while_connecting(error, text)
    if state.startswith("28"):
        return AccessError(f"{server} refused the credentials: {text}; check `user` and `password`")
    if state == "3D000":
        return AccessError(f"{server}: {text}; check `database`, or create it")
    if state == "42501":
        return AccessError(f"the user may not connect to {server}: {text}")
    if state == "53300":
        return RateLimitedError(
            f"{server}: {text}; lower `pool.max_size` or raise the server's max_connections"
        )
    if state.startswith(("57P", "53")):
        return UnavailableError(f"{server} does not accept connections now: {text}")
    if "unsupported startup parameter" in text:
        return ConfigError(
            f'{server}: {text}; behind PgBouncer set pooler="transaction", or in session mode its'
            " ignore_startup_parameters; `server_settings` and `options` are such parameters"
        )
    if isinstance(error, TimeoutError):
        return ConnectError(f"no response from {server} within `connect_timeout`")
    return ConnectError(f"no connection to {server} could be opened: {text}{_tls_hint(text)}")


def _tls_hint(text: str) -> str:
    if "certificate" in text.lower():
        return (
            "; check `ssl_root_cert` (the authority that signed it) and the host's name, or choose another"
            " mode of `ssl`"
        )
    if "SSL" in text:
        return "; check `ssl`: the mode in which the server is asked for TLS"
    return ""
