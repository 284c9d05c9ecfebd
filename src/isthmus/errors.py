"""The error classes: the class says what failed; attributes say whether a write may have been applied.

IsthmusError
├── ConfigError                  an invalid setting, detected before any I/O
│   └── MissingExtraError        an optional dependency is not installed
├── UsageError                   an invalid call
│   ├── QueryError               an invalid query, or a cursor of another query
│   └── ClosedError              the handle, stream or transaction is closed
├── UnsupportedError             the backend lacks a capability
├── RecordError
│   ├── NotFoundError            no record has this id
│   ├── AlreadyExistsError       a record with this id exists
│   ├── ConflictError            the record is not at the expected version
│   ├── InvalidRecordError       a value that no backend can store
│   └── NotWrittenError          a valid item of an atomic batch in which another item failed
├── BatchError                   some items of a batch failed
├── StoreError                   the store or the connection to it failed
│   ├── UnavailableError         also a builtin ConnectionError
│   │   ├── ConnectError
│   │   ├── PoolTimeoutError     also a builtin TimeoutError
│   │   ├── RateLimitedError
│   │   └── CircuitOpenError
│   ├── DeadlineError            also a builtin TimeoutError
│   ├── AccessError              wrong credentials or missing privileges
│   ├── ChangesExpiredError      a position among changes cannot be continued
│   └── UnexpectedError          an error of the store that maps to no other class
└── TransactionError
    └── SerializationError       a conflict with another transaction; run it again
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
    "ChangesExpiredError",
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
    """Whether a failed write may have been applied: `NO`, or `MAYBE` if its response was lost."""

    NO = "no"
    MAYBE = "maybe"


class IsthmusError(Exception):
    """The base class of all errors that isthmus raises.

    `transient` is true if the same call may succeed later. `applied` says whether a failed write may
    have been applied. `retry_after` is how many seconds the store asked to wait, or None.
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
        # Subclasses have required keyword arguments, which the default would not pass.
        return _rebuild, (type(self), str(self), dict(self.__dict__))


def _rebuild(cls: type[IsthmusError], message: str, state: dict[str, Any]) -> IsthmusError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class ConfigError(IsthmusError):
    """A setting is invalid; nothing was contacted."""


class MissingExtraError(ConfigError):
    """An optional dependency is not installed; `extra` names the extra that installs it."""

    def __init__(self, message: str, *, extra: str) -> None:
        super().__init__(message)
        self.extra = extra


class UsageError(IsthmusError):
    """The call or one of its arguments is invalid."""


class QueryError(UsageError):
    """The query is invalid, or the cursor belongs to another query."""


class ClosedError(UsageError):
    """The handle, stream or transaction is closed."""


class UnsupportedError(IsthmusError):
    """The backend does not support this; `capability` names what it lacks."""

    def __init__(self, message: str, *, capability: str | None = None) -> None:
        super().__init__(message)
        self.capability = capability


class RecordError(IsthmusError):
    """A record could not be read or written; `record_id` is its id, or None if it has none."""

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
    """A record with this id, or with the same value of a unique field, already exists.

    `field` is the unique field, or several joined by commas, and `record_id` then the other record;
    `field` is None if the id is taken.
    """

    field: str | None = None


class ConflictError(RecordError):
    """The record is not at the version that the caller expected."""


class InvalidRecordError(RecordError):
    """A value cannot be stored by any backend; `path` is where it is (`data.items[3].price`).

    `stored` is true if it was read from the store: a stored record does not match its model.
    """

    stored = False

    def __init__(self, message: str, *, path: str, record_id: str | None = None) -> None:
        super().__init__(message, record_id=record_id)
        self.path = path


class NotWrittenError(RecordError):
    """The item is valid, but another item of its atomic batch failed, so nothing was written."""


class BatchError(IsthmusError):
    """At least one item of a batch failed.

    `outcomes` has one entry for each item in order: the value that the method returns, or the
    item's error. `transient` is true if all failed items are; `applied` is `MAYBE` if any item's is.
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
    """The store, or the connection to it, failed."""


class UnavailableError(StoreError, ConnectionError):
    """The store cannot be reached or does not accept requests at the moment."""

    transient = True


class ConnectError(UnavailableError):
    """A connection could not be established."""


class PoolTimeoutError(UnavailableError, TimeoutError):
    """No connection of the pool became free in time; the message names its holders."""


class RateLimitedError(UnavailableError):
    """The store rejected the request because of a rate limit."""


class CircuitOpenError(UnavailableError):
    """The circuit breaker rejected the call after repeated failures of this endpoint."""


class DeadlineError(StoreError, TimeoutError):
    """The operation timed out."""

    transient = True


class AccessError(StoreError):
    """The credentials are invalid or lack a privilege."""


class ChangesExpiredError(StoreError):
    """The position is of another store or time, or the changes after it were pruned; begin again."""


class UnexpectedError(StoreError):
    """The store returned an error that maps to no other class; the cause is chained."""


class TransactionError(IsthmusError):
    """The transaction failed and was rolled back, unless `applied` is `MAYBE`."""


class SerializationError(TransactionError):
    """The transaction conflicts with another one; running it again may succeed."""

    transient = True
