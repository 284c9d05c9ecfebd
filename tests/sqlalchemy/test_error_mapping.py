"""No error of SQLAlchemy's, asyncmy's, asyncpg's or sqlite3's reaches a user: each has a name of ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import asyncmy.errors
import asyncpg
import pytest

from isthmus.backends.sqlalchemy.errors import translate, translate_errors
from isthmus.errors import (
    AccessError,
    Applied,
    ConfigError,
    ConnectError,
    DeadlineError,
    IsthmusError,
    PoolTimeoutError,
    RateLimitedError,
    SerializationError,
    TransactionError,
    UnavailableError,
    UnexpectedError,
)
from sqlalchemy import exc

pytestmark = pytest.mark.backend("sqlalchemy")


def _below(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _below(inner)


def _of(module: str, *roots: type[BaseException]) -> list[type[BaseException]]:
    found = {kind for root in roots for kind in _below(root) if kind.__module__.startswith(module)}
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


DRIVERS = [
    *_of("asyncmy", asyncmy.errors.MySQLError),
    *_of("sqlite3", sqlite3.Error),
    *_of("asyncpg", asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
]


def _named(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@pytest.mark.parametrize("kind", _of("sqlalchemy", exc.SQLAlchemyError), ids=_named)
def test_every_class_of_sqlalchemy_is_mapped(kind: type[BaseException]) -> None:
    """Each becomes one of ours, its own kept as the cause."""
    error = kind.__new__(kind)
    BaseException.__init__(error, "what it says")
    if isinstance(error, exc.StatementError):
        exc.StatementError.__init__(error, "what it says", "SELECT 1", {}, RuntimeError("what it says"))
    if isinstance(error, exc.DBAPIError):
        error.connection_invalidated = False

    with pytest.raises(IsthmusError) as caught, translate_errors("here", commits=True):
        raise error

    assert caught.value.__cause__ is error
    assert str(caught.value).startswith("here: ")


@pytest.mark.parametrize("kind", DRIVERS, ids=_named)
def test_every_class_of_the_drivers_is_mapped(kind: type[Exception]) -> None:
    """Wrapped by SQLAlchemy as after a statement, or bare as after a failure to connect."""
    bare = kind("what it says")
    wrapped = exc.DBAPIError("INSERT secret", {"a": "canary"}, bare)
    for error in (bare, wrapped):
        with pytest.raises(IsthmusError) as caught, translate_errors("here"):
            raise error
        assert "what it says" in str(caught.value)
        assert "canary" not in str(caught.value)
        assert caught.value.applied is Applied.NO


@pytest.mark.parametrize(
    ("number", "expected", "transient"),
    [
        (1213, SerializationError, True),
        (1205, DeadlineError, True),
        (1040, RateLimitedError, True),
        (1044, AccessError, False),
        (1045, AccessError, False),
        (1049, AccessError, False),
        (1146, ConfigError, False),
        (1290, UnavailableError, True),
        (2003, ConnectError, True),
        (2006, UnavailableError, True),
        (2013, UnavailableError, True),
        (1064, UnexpectedError, False),
    ],
)
def test_a_number_of_mysql_says_what_happened(
    number: int, expected: type[IsthmusError], transient: bool
) -> None:
    """The numbers are MySQL's and MariaDB's alike."""
    original = asyncmy.errors.OperationalError(number, "what it says")
    ours = translate(exc.OperationalError("SELECT 1", None, original), "here")

    assert type(ours) is expected
    assert ours.transient is transient
    assert ours.applied is Applied.NO


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("40001", SerializationError),
        ("40P01", SerializationError),
        ("57014", DeadlineError),
        ("53300", RateLimitedError),
        ("28P01", AccessError),
        ("3D000", AccessError),
        ("42P01", ConfigError),
        ("57P01", UnavailableError),
        ("22P02", UnexpectedError),
    ],
)
def test_a_sqlstate_says_what_happened(state: str, expected: type[IsthmusError]) -> None:
    """The same as in the backend for PostgreSQL."""
    original = asyncpg.PostgresError.new({"C": state, "M": "text", "S": "ERROR"})

    assert type(translate(exc.DBAPIError("SELECT 1", None, original), "here")) is expected
    assert type(translate(original, "here")) is expected


def test_a_deadlock_is_told_although_its_savepoint_is_gone_too() -> None:
    """The victim has lost the savepoint that SQLAlchemy then goes back to, and fails again."""
    deadlock = exc.OperationalError("INSERT", None, asyncmy.errors.OperationalError(1213, "Deadlock"))
    gone = exc.OperationalError("ROLLBACK TO", None, asyncmy.errors.OperationalError(1305, "no savepoint"))
    gone.__context__ = deadlock

    assert type(translate(gone, "here")) is SerializationError


def test_only_a_lost_answer_to_the_commit_leaves_doubt() -> None:
    """Before the commit the server undoes what was sent; a refused commit has a known outcome too."""
    lost = exc.OperationalError("COMMIT", None, asyncmy.errors.OperationalError(2013, "Lost connection"))
    deadlock = exc.OperationalError("COMMIT", None, asyncmy.errors.OperationalError(1213, "Deadlock"))

    assert translate(lost, "here").applied is Applied.NO
    assert translate(lost, "here", commits=True).applied is Applied.MAYBE
    assert translate(deadlock, "here", commits=True).applied is Applied.NO
    assert translate(ConnectionResetError("reset"), "here", commits=True).applied is Applied.MAYBE


def test_what_is_not_a_drivers_passes() -> None:
    """A mistake in our own code is not dressed up as a failure of the store."""
    with pytest.raises(KeyError), translate_errors("here"):
        raise KeyError("ours")
    for ours in (TransactionError("ours"), UnavailableError("ours", applied=Applied.MAYBE)):
        with pytest.raises(IsthmusError) as caught, translate_errors("here"):
            raise ours
        assert caught.value is ours


def test_a_full_pool_says_which_setting_to_raise() -> None:
    """And can be retried."""
    ours = translate(exc.TimeoutError("QueuePool limit"), "here")

    assert isinstance(ours, PoolTimeoutError)
    assert ours.transient
    assert "pool.size" in str(ours)
