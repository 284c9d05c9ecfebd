"""Delete: by id, by query, or a whole collection, and nothing of other collections."""

from __future__ import annotations

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import QueryError, UsageError
from isthmus.testing.conformance._fixtures import drop_collection, id_set, put_one, store, store_people


@pytest.mark.asyncio
async def test_delete_returns_whether_the_record_existed(db: AsyncDatabase) -> None:
    """True at first, then False for the same id."""
    await put_one(db, Record({"n": 1}, id="x"))

    assert await db.delete("x") is True
    assert await db.delete("x") is False
    assert await db.get("x") is None
    assert await db.exists("x") is False


@pytest.mark.asyncio
async def test_a_batch_of_deletes_returns_it_for_each_id(db: AsyncDatabase) -> None:
    """Ids may be missing or repeated."""
    await store(db, {"a": {}, "b": {}, "c": {}})

    assert await db.delete_batch(["a", "nobody", "c", "a"]) == [True, False, True, False]
    assert [r.id for r in await db.search()] == ["b"]


@pytest.mark.asyncio
async def test_delete_where_deletes_what_a_search_finds(db: AsyncDatabase) -> None:
    """It returns their number; other records stay."""
    await store_people(db)

    assert await db.delete_where(field("age") >= 30) == 2
    assert {r.id for r in await db.search()} == id_set("bob dan eve")
    assert await db.delete_where(~field("city").exists()) == 1
    assert {r.id for r in await db.search()} == id_set("dan eve")
    assert await db.delete_where(field("name").regex("^E") & (field("tags") == "deep")) == 1
    assert {r.id for r in await db.search()} == id_set("dan")


@pytest.mark.asyncio
async def test_delete_where_without_a_condition_is_refused(db: AsyncDatabase) -> None:
    """`clear()` deletes everything; a limit is refused as well."""
    await store_people(db)

    with pytest.raises(UsageError):
        await db.delete_where(Query())
    with pytest.raises(QueryError):
        await db.delete_where(Query().filter("age", ">", 1).limit(1))

    assert await db.count() == 5


@pytest.mark.asyncio
async def test_clear_deletes_this_collection_alone(db: AsyncDatabase) -> None:
    """A collection whose name starts with this one's name keeps its records."""
    name = db.collection_name
    longer = db.collection(f"{name}2")
    await store(db, {"a": {}, "b": {}})
    await put_one(longer, Record({"n": 1}, id="a"))
    await put_one(longer, Record({"n": 2}, id="other"))
    try:
        assert await db.count() == 2
        assert {r.id for r in await db.search()} == id_set("a b")

        assert await db.clear() == 2

        assert await db.count() == 0
        assert {r.id for r in await longer.search()} == id_set("a other")
        assert await db.clear() == 0
    finally:
        await drop_collection(db, longer.collection_name)


@pytest.mark.asyncio
async def test_a_deleted_id_can_be_created_again(db: AsyncDatabase) -> None:
    """The new record has a new version."""
    await put_one(db, Record({"n": 1}, id="x"))
    before = await db.require("x")
    await db.delete("x")

    await put_one(db, Record({"n": 2}, id="x"))

    after = await db.require("x")
    assert after.data == {"n": 2}
    assert after.version != before.version
