"""The error tree: one root, classes that say what happened, attributes that say whether it was done.

IsthmusError
├── ConfigError                  a wrong setting, found before any I/O
│   └── MissingExtraError        an optional dependency is not installed
├── UsageError                   a call that cannot mean anything
│   ├── QueryError               a query that cannot be built, or a cursor that does not fit
│   └── ClosedError              the handle, stream or transaction is closed
├── UnsupportedError             the backend cannot do this, and says so instead of imitating it
├── RecordError
│   ├── NotFoundError            no record has this id
│   ├── AlreadyExistsError       a record with this id is there
│   ├── ConflictError            the record changed since the version that was read
│   ├── InvalidRecordError       a value that no backend stores
│   └── NotWrittenError          a good item of an atomic batch in which another one failed
├── BatchError                   some items of a batch failed; all outcomes are in it
├── StoreError                   the store, or the way to it
│   ├── UnavailableError         also a builtin ConnectionError
│   │   ├── ConnectError
│   │   ├── PoolTimeoutError     also a builtin TimeoutError
│   │   ├── RateLimitedError
│   │   └── CircuitOpenError
│   ├── DeadlineError            also a builtin TimeoutError
│   ├── AccessError              wrong credentials or missing privileges
│   └── UnexpectedError          the store said something that we have no name for
└── TransactionError
    └── SerializationError       run the transaction again
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

__all__ = [
    "AccessError",
    "AlreadyExistsError",
    "Applied",
    "BatchError",
    "CircuitOpenError",
    "ClosedError",
    "ConfigError",
    "ConflictError",
    "ConnectError",
    "DeadlineError",
    "InvalidRecordError",
    "IsthmusError",
    "MissingExtraError",
    "NotFoundError",
    "NotWrittenError",
    "PoolTimeoutError",
    "QueryError",
    "RateLimitedError",
    "RecordError",
    "SerializationError",
    "StoreError",
    "TransactionError",
    "UnavailableError",
    "UnexpectedError",
    "UnsupportedError",
    "UsageError",
]


class Applied(enum.Enum):
    """Whether a failed write may have been done all the same."""

    NO = "no"
    MAYBE = "maybe"


class IsthmusError(Exception):
    """The root of all errors that isthmus raises.

    `transient` says that the same call may succeed later; `applied` whether a write may have been
    done although it failed; `retry_after` the seconds that the store asked us to wait, if it did.
    """

    transient: bool = False
    applied: Applied = Applied.NO
    retry_after: float | None = None

    def __init__(
        self,
        message: str,
        *,
        transient: bool | None = None,
        applied: Applied | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        if transient is not None:
            self.transient = transient
        if applied is not None:
            self.applied = applied
        if retry_after is not None:
            self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses have required keyword arguments; rebuild from the state alone.
        return _rebuild, (type(self), str(self), dict(self.__dict__))


def _rebuild(cls: type[IsthmusError], message: str, state: dict[str, Any]) -> IsthmusError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class ConfigError(IsthmusError):
    """A setting is wrong; nothing was contacted."""


class MissingExtraError(ConfigError):
    """An optional dependency is not installed; `extra` is the name to install."""

    def __init__(self, message: str, *, extra: str) -> None:
        super().__init__(message)
        self.extra = extra


class UsageError(IsthmusError):
    """A call that cannot mean anything here."""


class QueryError(UsageError):
    """A query that cannot be built, or a cursor that does not belong to it."""


class ClosedError(UsageError):
    """The handle, stream or transaction is closed."""


class UnsupportedError(IsthmusError):
    """The backend cannot do this; `capability` names what is missing."""

    def __init__(self, message: str, *, capability: str | None = None) -> None:
        super().__init__(message)
        self.capability = capability


class RecordError(IsthmusError):
    """One record could not be read or written; `record_id` names it where it has a name."""

    def __init__(
        self,
        message: str,
        *,
        record_id: str | None = None,
        applied: Applied | None = None,
    ) -> None:
        super().__init__(message, applied=applied)
        self.record_id = record_id


class NotFoundError(RecordError):
    """No record has this id."""


class AlreadyExistsError(RecordError):
    """A record with this id is there already."""


class ConflictError(RecordError):
    """The record is no longer at the version that the caller saw."""


class InvalidRecordError(RecordError):
    """A value that no backend stores; `path` leads to it (`data.items[3].price`)."""

    def __init__(self, message: str, *, path: str, record_id: str | None = None) -> None:
        super().__init__(message, record_id=record_id)
        self.path = path


class NotWrittenError(RecordError):
    """This item was fine; another one of its atomic batch failed, so nothing was written."""


class BatchError(IsthmusError):
    """At least one item of a batch failed.

    `outcomes` has one entry for each item in order: what the verb returns, or the item's error.
    """

    def __init__(self, message: str, *, outcomes: Sequence[Any]) -> None:
        failed = [o for o in outcomes if isinstance(o, IsthmusError)]
        maybe = any(o.applied is Applied.MAYBE for o in failed)
        super().__init__(
            message,
            transient=bool(failed) and all(o.transient for o in failed),
            applied=Applied.MAYBE if maybe else Applied.NO,
        )
        self.outcomes = outcomes


class StoreError(IsthmusError):
    """The store, or the way to it, failed."""


class UnavailableError(StoreError, ConnectionError):
    """The store cannot be reached or does not serve now."""

    transient = True


class ConnectError(UnavailableError):
    """No connection could be made."""


class PoolTimeoutError(UnavailableError, TimeoutError):
    """No connection became free in time; the message names the holders."""


class RateLimitedError(UnavailableError):
    """The store asks for less traffic."""


class CircuitOpenError(UnavailableError):
    """Calls to this endpoint are held back after repeated failures."""


class DeadlineError(StoreError, TimeoutError):
    """The operation did not end within its deadline."""

    transient = True


class AccessError(StoreError):
    """The credentials are wrong or lack a privilege."""


class UnexpectedError(StoreError):
    """The store answered something that has no name here; the cause is chained."""


class TransactionError(IsthmusError):
    """The transaction cannot go on; nothing of it was applied unless `applied` says maybe."""


class SerializationError(TransactionError):
    """Another transaction came first; running this one again may succeed."""

    transient = True
