"""Errors: one hierarchy with the attributes to act on; unknown names are never guessed."""

from __future__ import annotations

import copy
import pickle

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import (
    Applied,
    ConfigError,
    InvalidRecordError,
    IsthmusError,
    NotFoundError,
    QueryError,
    RecordError,
    UsageError,
)


@pytest.mark.asyncio
async def test_a_missing_record_is_not_an_error_to_get_and_is_one_to_require(db: AsyncDatabase) -> None:
    """The error has the id, is not transient, and nothing was applied."""
    assert await db.get("nobody") is None

    with pytest.raises(NotFoundError) as caught:
        await db.require("nobody")

    error = caught.value
    assert isinstance(error, RecordError)
    assert (error.record_id, error.transient, error.applied) == ("nobody", False, Applied.NO)


@pytest.mark.asyncio
async def test_an_error_survives_pickling_and_copying(db: AsyncDatabase) -> None:
    """With all its attributes, so that it can be passed between processes."""
    with pytest.raises(InvalidRecordError) as caught:
        await db.create(Record({"a": float("nan")}, id="x"))

    for other in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):  # noqa: S301
        assert type(other) is InvalidRecordError
        assert (str(other), other.path, other.record_id) == (str(caught.value), "data.a", "x")


@pytest.mark.asyncio
async def test_an_unknown_operator_suggests_a_known_one(db: AsyncDatabase) -> None:
    """The message suggests the intended operator."""
    with pytest.raises(QueryError, match="starts_with"):
        await db.search(Query().filter("a", "startswith", "x"))
    with pytest.raises(QueryError, match="!="):
        await db.search(Query().filter("a", "<>", "x"))


@pytest.mark.asyncio
async def test_a_predicate_has_no_truth_value(db: AsyncDatabase) -> None:
    """`if query:` and `and` raise TypeError, since they would be silently wrong."""
    predicate = field("a") == 1
    with pytest.raises(TypeError):
        bool(predicate)
    with pytest.raises(TypeError):
        predicate and predicate  # noqa: B018
    with pytest.raises(TypeError):
        bool(Query())
    assert await db.count(predicate & predicate) == 0


@pytest.mark.asyncio
async def test_arguments_that_are_not_queries_or_records_are_refused(db: AsyncDatabase) -> None:
    """With an IsthmusError."""
    for call in (
        lambda: db.search("text"),  # type: ignore[arg-type]
        lambda: db.search({"a": 1}),  # type: ignore[arg-type]
        lambda: db.create("text"),  # type: ignore[arg-type]
        lambda: db.create([("a", 1)]),  # type: ignore[arg-type]
        lambda: db.get(5),  # type: ignore[arg-type]
        lambda: db.upsert("x"),  # type: ignore[call-overload]
    ):
        with pytest.raises(IsthmusError):
            await call()
    assert await db.count() == 0


@pytest.mark.asyncio
async def test_an_unknown_setting_is_refused_with_a_hint(db: AsyncDatabase) -> None:
    """A misspelled `hosst` does not fall back to the default host; the message suggests the known name."""
    config = type(db.config)
    known = next(iter(sorted(config.model_fields, key=len, reverse=True)))

    with pytest.raises(ConfigError, match=known):
        AsyncDatabase(db.backend, {known + "x": 1})
    with pytest.raises(ConfigError, match="Known"):
        AsyncDatabase(db.backend + "x", {})


@pytest.mark.asyncio
async def test_an_invalid_collection_name_is_a_usage_error(db: AsyncDatabase) -> None:
    """It is raised before any I/O."""
    with pytest.raises(UsageError):
        db.collection("")
    with pytest.raises(UsageError):
        db.collection(5)  # type: ignore[call-overload]
