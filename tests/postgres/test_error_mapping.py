"""No error of a driver reaches a user: every class of asyncpg's and psycopg's has a name of ours."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import psycopg
import pytest

from isthmus.backends.postgres.errors import translate
from isthmus.errors import (
    AccessError,
    Applied,
    ConfigError,
    DeadlineError,
    IsthmusError,
    RateLimitedError,
    SerializationError,
    TransactionError,
    UnavailableError,
    UnexpectedError,
    UsageError,
)

pytestmark = pytest.mark.backend("postgres")


def _below(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _below(inner)


DRIVERS = sorted(
    {
        kind
        for root in (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            psycopg.Error,
        )
        for kind in _below(root)
        if issubclass(kind, Exception) and kind.__module__.startswith(("asyncpg", "psycopg"))
    },
    key=lambda kind: (kind.__module__, kind.__qualname__),
)


@pytest.mark.parametrize("kind", DRIVERS, ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_every_class_of_the_drivers_is_mapped(kind: type[Exception]) -> None:
    """Each becomes one of ours, with `transient` and `applied` set."""
    ours = translate(kind("what it says"), writing=True)

    assert isinstance(ours, IsthmusError)
    assert "what it says" in str(ours)
    assert isinstance(ours.transient, bool)
    assert isinstance(ours.applied, Applied)


@pytest.mark.parametrize(
    ("state", "expected", "transient", "applied"),
    [
        ("40001", SerializationError, True, Applied.NO),
        ("40P01", SerializationError, True, Applied.NO),
        ("25P02", TransactionError, False, Applied.NO),
        ("25006", UnavailableError, True, Applied.NO),
        ("57P01", UnavailableError, True, Applied.MAYBE),
        ("57P03", UnavailableError, True, Applied.NO),
        ("08006", UnavailableError, True, Applied.MAYBE),
        ("57014", DeadlineError, True, Applied.NO),
        ("55P03", DeadlineError, True, Applied.NO),
        ("53300", RateLimitedError, True, Applied.NO),
        ("53100", UnavailableError, True, Applied.NO),
        ("28P01", AccessError, False, Applied.NO),
        ("42501", AccessError, False, Applied.NO),
        ("3D000", AccessError, False, Applied.NO),
        ("42P01", ConfigError, False, Applied.NO),
        ("42703", ConfigError, False, Applied.NO),
        ("22P02", UnexpectedError, False, Applied.NO),
        ("XX000", UnexpectedError, False, Applied.NO),
    ],
)
def test_a_sqlstate_says_what_happened(
    state: str, expected: type[IsthmusError], transient: bool, applied: Applied
) -> None:
    """The same for both drivers."""
    for error in (
        asyncpg.PostgresError.new({"C": state, "M": "text", "S": "ERROR"}),
        psycopg.errors.lookup(state)("text") if state in _KNOWN else None,
    ):
        if error is None:
            continue
        ours = translate(error, writing=True)

        assert type(ours) is expected
        assert (ours.transient, ours.applied) == (transient, applied)


_KNOWN = {kind.sqlstate for kind in _below(psycopg.Error) if getattr(kind, "sqlstate", None)}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError("reset"), UnavailableError),
        (BrokenPipeError("pipe"), UnavailableError),
        (TimeoutError(), DeadlineError),
        (asyncpg.ConnectionDoesNotExistError("closed"), UnavailableError),
        (asyncpg.InterfaceError("connection is closed"), UnavailableError),
        (
            asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
            UsageError,
        ),
        (psycopg.OperationalError("server closed the connection unexpectedly"), UnavailableError),
    ],
)
def test_what_breaks_on_the_way_leaves_a_doubt_about_writes(
    error: Exception, expected: type[IsthmusError]
) -> None:
    """Without an answer a write may have been done; a read has done nothing."""
    ours = translate(error, writing=True)

    assert type(ours) is expected
    assert ours.applied is (Applied.NO if expected is UsageError else Applied.MAYBE)
    reading = translate(error, writing=False)
    assert reading is not None
    assert reading.applied is Applied.NO


def test_what_is_not_the_drivers_is_left_alone() -> None:
    """Errors of the user's own, and ours, pass through."""
    assert translate(ValueError("mine"), writing=True) is None
    assert translate(UsageError("ours"), writing=True) is None
    assert translate(KeyboardInterrupt(), writing=True) is None
