"""Versions: a token that changes with every write and enables compare-and-set."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from isthmus import AsyncDatabase, Record, field
from isthmus.errors import BatchError, ConflictError, NotFoundError, UsageError
from isthmus.testing.conformance._fixtures import requires


@pytest.mark.asyncio
async def test_every_write_changes_the_version(db: AsyncDatabase) -> None:
    """Also a write of the same data; get, get_batch and search return the same version."""
    await db.upsert("x", {"n": 1})
    seen = [(await db.require("x")).version]
    for _ in range(3):
        seen.append(await db.upsert("x", {"n": 1}))
        assert (await db.require("x")).version == seen[-1]
        assert [r.version for r in await db.get_batch(["x"]) if r is not None] == [seen[-1]]
        assert [r.version for r in await db.search()] == [seen[-1]]

    assert len(set(seen)) == 4
    assert all(isinstance(version, str) for version in seen)


@requires("compare_and_set")
@pytest.mark.parametrize("method", ["replace", "update", "upsert", "delete"])
@pytest.mark.asyncio
async def test_a_stale_write_changes_nothing(db: AsyncDatabase, method: str) -> None:
    """Of two writers that read the same version, the second fails."""
    await db.upsert("x", {"n": 1})
    stale = (await db.require("x")).version
    await db.replace("x", {"n": 2})
    arguments: list[Any] = ["x"] if method == "delete" else ["x", {"n": 3}]

    with pytest.raises(ConflictError) as caught:
        await getattr(db, method)(*arguments, if_version=stale)

    assert caught.value.record_id == "x"
    assert (await db.require("x")).data == {"n": 2}


@requires("compare_and_set")
@pytest.mark.parametrize("method", ["replace", "update", "upsert", "delete"])
@pytest.mark.asyncio
async def test_a_write_with_the_current_version_succeeds(db: AsyncDatabase, method: str) -> None:
    """The version may come from a read or from the last write."""
    written = await db.upsert("x", {"n": 1})
    assert (await db.require("x")).version == written
    arguments: list[Any] = ["x"] if method == "delete" else ["x", {"n": 3}]

    await getattr(db, method)(*arguments, if_version=written)

    record = await db.get("x")
    assert (record is None) if method == "delete" else (record is not None and record.data == {"n": 3})


@requires("compare_and_set")
@pytest.mark.asyncio
async def test_a_version_of_a_missing_record_never_matches(db: AsyncDatabase) -> None:
    """Replace and update raise NotFoundError, upsert and delete ConflictError; nothing is created."""
    for method in ("replace", "update"):
        with pytest.raises(NotFoundError):
            await getattr(db, method)("x", {"n": 1}, if_version="1")
    with pytest.raises(ConflictError):
        await db.upsert("x", {"n": 1}, if_version="1")
    with pytest.raises(ConflictError):
        await db.delete("x", if_version="1")

    assert await db.count() == 0


@requires("compare_and_set")
@pytest.mark.parametrize("version", ["", "bogus", "-1", "9" * 40, "é", "a/b"])
@pytest.mark.asyncio
async def test_an_invalid_version_is_a_conflict(db: AsyncDatabase, version: str) -> None:
    """A version that the store never returned is stale, not an error of the store, and not absent."""
    await db.upsert("x", {"n": 1})

    for method in ("replace", "update", "upsert"):
        with pytest.raises(ConflictError):
            await getattr(db, method)("x", {"n": 2}, if_version=version)
    with pytest.raises(ConflictError):
        await db.delete("x", if_version=version)
    with pytest.raises(ConflictError):
        await db.modify("x", field("n").set(2), if_version=version)

    assert (await db.require("x")).data == {"n": 1}


class Numbered(BaseModel):
    """A model of one number."""

    n: int = 0


async def _assert_refused(db: AsyncDatabase, version: Any, refused: type[Exception]) -> None:
    """Assert that each method of a typed collection refuses a version, and changes nothing."""
    typed = db.collection(db.collection_name, Numbered)
    await db.upsert("x", {"n": 1})

    with pytest.raises(refused):
        await typed.replace("x", Numbered(n=2), if_version=version)
    with pytest.raises(refused):
        await typed.upsert("x", Numbered(n=2), if_version=version)
    with pytest.raises(refused):
        await typed.update("x", n=2, if_version=version)
    with pytest.raises(refused):
        await typed.delete("x", if_version=version)

    assert (await db.require("x")).data == {"n": 1}


@requires("compare_and_set")
@pytest.mark.asyncio
async def test_an_empty_version_is_not_the_absence_of_one(db: AsyncDatabase) -> None:
    """An empty text is stale, in the methods of typed collections too."""
    await _assert_refused(db, "", ConflictError)


@pytest.mark.parametrize("version", [0, False, b""])
@pytest.mark.asyncio
async def test_a_version_that_is_no_text_is_refused(db: AsyncDatabase, version: Any) -> None:
    """As an error of the call, in the methods of typed collections too."""
    await _assert_refused(db, version, UsageError)


@requires("compare_and_set")
@pytest.mark.asyncio
async def test_a_version_of_a_deleted_record_does_not_match(db: AsyncDatabase) -> None:
    """After a delete and a create the old version is stale."""
    old = await db.upsert("x", {"n": 1})
    await db.delete("x")
    await db.upsert("x", {"n": 1})

    with pytest.raises(ConflictError):
        await db.replace("x", {"n": 2}, if_version=old)


@requires("compare_and_set")
@pytest.mark.asyncio
async def test_of_many_writers_with_one_version_one_wins(db: AsyncDatabase) -> None:
    """Of twelve concurrent writers, one succeeds and eleven get a conflict."""
    version = await db.upsert("x", {"n": -1})

    written = await asyncio.gather(
        *(db.replace("x", {"n": n}, if_version=version) for n in range(12)), return_exceptions=True
    )

    for outcome in written:
        if isinstance(outcome, BaseException) and not isinstance(outcome, ConflictError):
            raise outcome
    winners = [n for n, outcome in enumerate(written) if isinstance(outcome, str)]
    assert len(winners) == 1
    assert (await db.require("x")).data == {"n": winners[0]}


@requires("compare_and_set")
@pytest.mark.asyncio
async def test_each_item_of_a_batch_has_its_own_version(db: AsyncDatabase) -> None:
    """A stale item is a conflict; the others are written if the batch is not atomic."""
    await db.upsert_batch({"a": {"n": 1}, "b": {"n": 1}})
    fresh, stale = [r.version for r in await db.get_batch(["a", "b"]) if r is not None]
    await db.replace("b", {"n": 2})

    with pytest.raises(BatchError) as caught:
        await db.replace_batch([("a", {"n": 9}, fresh), ("b", {"n": 9}, stale)], atomic=False)

    assert isinstance(caught.value.outcomes[0], str)
    assert isinstance(caught.value.outcomes[1], ConflictError)
    assert [r.data for r in await db.get_batch(["a", "b"]) if r is not None] == [{"n": 9}, {"n": 2}]


@pytest.mark.asyncio
async def test_a_version_can_be_queried(db: AsyncDatabase) -> None:
    """`_version` is a field of the record."""
    from isthmus import field

    version = await db.upsert("x", Record({"n": 1}))
    await db.upsert("y", Record({"n": 2}))

    assert [r.id for r in await db.search(field("_version") == version)] == ["x"]
