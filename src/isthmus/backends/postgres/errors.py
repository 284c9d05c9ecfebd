"""The driver's errors as ours: by SQLSTATE where the server spoke, by what broke where it did not."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from isthmus.backends.postgres.failures import sqlstate_of
from isthmus.errors import (
    AccessError,
    Applied,
    ConfigError,
    DeadlineError,
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


def _lost(writing: bool) -> Applied:
    """Return what became of a write whose answer is missing."""
    return Applied.MAYBE if writing else Applied.NO


def _store(kind: type[StoreError], hint: str = "", *, transient: bool | None = None) -> _Make:
    def make(text: str, writing: bool) -> IsthmusError:
        return kind(f"postgres: {text}{hint}", transient=transient)

    return make


def _config(hint: str) -> _Make:
    return lambda text, writing: ConfigError(f"postgres: {text}; {hint}")


def _transaction(text: str, writing: bool) -> IsthmusError:
    return TransactionError(f"postgres: {text}")


def _serialization(text: str, writing: bool) -> IsthmusError:
    return SerializationError(f"postgres: {text}; run the transaction again")


def _unknown_commit(text: str, writing: bool) -> IsthmusError:
    return UnavailableError(f"postgres: {text}", applied=_lost(writing))


# Whole codes first, then classes (the first two characters).
_BY_CODE: dict[str, _Make] = {
    "40001": _serialization,
    "40P01": _serialization,
    "40003": _unknown_commit,
    "25006": _store(
        UnavailableError, "; the server is read-only: a standby after a failover, or a read-only transaction"
    ),
    "25P02": _transaction,
    "25P03": _transaction,
    "57014": _store(DeadlineError, "; raise `command_timeout` or the server's statement_timeout"),
    "57P01": _unknown_commit,
    "57P02": _unknown_commit,
    "57P03": _store(UnavailableError),
    "57P05": _unknown_commit,
    "55P03": _store(DeadlineError, "; another transaction holds the lock"),
    "53300": _store(RateLimitedError, "; lower `pool.max_size` or raise the server's max_connections"),
    "42P01": _config("the table is gone, or was never made (`create_table`)"),
    "42703": _config("the table has other columns than isthmus makes"),
    "42501": _store(AccessError, "; grant the privilege to this user"),
    "3D000": _store(AccessError, "; check `database`"),
    "3F000": _config("create the schema, or check `schema`"),
    "0A000": lambda text, writing: UnsupportedError(f"postgres: {text}"),
    "54000": _store(UnexpectedError, "; a value is beyond the server's limits"),
}
_BY_CLASS: dict[str, _Make] = {
    "08": _unknown_commit,
    "25": _transaction,
    "28": _store(AccessError, "; check `user` and `password`"),
    "40": _serialization,
    "53": _store(UnavailableError, "; the server is out of memory, disk or connections"),
    "57": _store(UnavailableError),
    "58": _store(UnavailableError),
    "F0": _store(UnavailableError),
}


def translate(error: BaseException, *, writing: bool) -> IsthmusError | None:
    """Return our error for one of the driver's; None for what is not the driver's or is ours already.

    `writing` says that a write may have reached the server: where its answer is missing, the
    error's `applied` is MAYBE.
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
            "postgres: the statement did not end within its timeout (`command_timeout`)",
            applied=_lost(writing),
        )
    if isinstance(error, OSError):  # ConnectionError included
        return UnavailableError(f"postgres: the connection broke: {text}", applied=_lost(writing))
    if type(error).__module__.partition(".")[0] in ("asyncpg", "psycopg"):
        return _without_state(error, text, writing=writing)
    return None


def _without_state(error: Exception, text: str, *, writing: bool) -> IsthmusError:
    """Return our error for what the driver itself says, told apart by the names in its own tree."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {
        "ConnectionDoesNotExistError",
        "ConnectionFailureError",
        "OperationalError",
        "TargetServerAttributeNotMatched",
    }:
        return UnavailableError(f"postgres: the connection broke: {text}", applied=_lost(writing))
    if "connection is closed" in text or "connection was closed" in text:
        return UnavailableError(f"postgres: {text}", applied=_lost(writing))
    if "cannot switch to state" in text:
        # asyncpg 0.32: the server was killed in the midst of an answer, and the connection that is
        # not yet seen as closed was used for the next call.
        return UnavailableError(f"postgres: the connection broke: {text}", applied=_lost(writing))
    if "ClientConfigurationError" in names:
        return ConfigError(f"postgres: {text}")
    if "another operation is in progress" in text:
        return UsageError("postgres: two tasks use one connection at once; each needs its own")
    return UnexpectedError(f"postgres: {text}", applied=_lost(writing))


class Translated:
    """Turns a driver's error that leaves the block into ours, the driver's chained to it."""

    __slots__ = ("_writing",)

    def __init__(self, *, writing: bool = False) -> None:
        self._writing = writing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            ours = translate(error, writing=self._writing)
            if ours is not None:
                raise ours from error


READING = Translated()
WRITING = Translated(writing=True)
