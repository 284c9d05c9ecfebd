"""Scopes: a handle of one tenant neither sees nor writes another's records (§5)."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, Record, field, native
from isthmus.errors import (
    AlreadyExistsError,
    BatchError,
    ConflictError,
    InvalidRecordError,
    NotFoundError,
    QueryError,
    UnsupportedError,
    UsageError,
)
from isthmus.testing.conformance._fixtures import put, requires

TENANT = field("tenant")


async def tenants(db: AsyncDatabase) -> tuple[AsyncDatabase, AsyncDatabase]:
    """Store three records of tenant a and two of b, and return a handle of each."""
    records = {"a1": ("a", 1), "a2": ("a", 2), "a3": ("a", 3), "b1": ("b", 1), "b2": ("b", 20)}
    await put(db, [Record({"tenant": t, "n": n}, id=id) for id, (t, n) in records.items()])
    await put(db, [Record({"n": 5}, id="nobody")])
    return db.scope(TENANT == "a"), db.scope(TENANT == "b")


async def everything(db: AsyncDatabase) -> dict[str | None, Any]:
    """Return the data of all records by id."""
    return {record.id: record.data for record in await db.search()}


@pytest.mark.asyncio
async def test_every_read_sees_the_records_of_the_scope_only(db: AsyncDatabase) -> None:
    """By id, by query, page by page, as a stream and in aggregates (§5)."""
    a, b = await tenants(db)
    own = ["a1", "a2", "a3"]

    assert [await a.get(id) is not None for id in ("a1", "b1", "nobody", "none")] == [
        True,
        False,
        False,
        False,
    ]
    assert [r and r.id for r in await a.get_batch(["b1", "a2", "b1", "nobody"])] == [None, "a2", None, None]
    assert await a.exists_batch(["a1", "b1"]) == [True, False]
    with pytest.raises(NotFoundError):
        await a.require("b1")
    assert [r.id for r in await a.search()] == own
    assert [r.id for r in await a.search(Query().sort("n", "desc").offset(1))] == ["a2", "a1"]
    assert [r.id for r in await a.search((TENANT == "b") | (field("n") == 3))] == ["a3"]
    assert [r.id for r in await a.search(~(TENANT == "a"))] == []
    assert {r.id async for r in a.stream()} == set(own)
    assert (await a.count(), await b.count(), await a.count(field("n") >= 2)) == (3, 2, 2)
    assert await a.find_one(TENANT == "b") is None
    assert not await a.exists(field("n") == 20)
    assert await a.aggregate(n="count", top=("max", "n")) == [{"n": 3, "top": 3}]
    assert await a.aggregate(by="tenant", n="count") == [{"tenant": "a", "n": 3}]
    assert "tenant = 'a'" in str(await a.explain(field("n") > 1))


@pytest.mark.asyncio
async def test_a_cursor_of_another_scope_shows_nothing_of_it(db: AsyncDatabase) -> None:
    """A cursor goes on in the scope of the handle that is given it (§5)."""
    a, b = await tenants(db)
    page = await a.page(size=1)

    assert [r.id for r in (await a.page(size=5, cursor=page.cursor)).records] == ["a2", "a3"]
    assert [r.id for r in (await b.page(size=5, cursor=page.cursor)).records] == ["b1", "b2"]


@requires("conditional_create")
@pytest.mark.asyncio
async def test_a_created_record_gets_the_values_of_the_scope(db: AsyncDatabase) -> None:
    """A create without them gets them; one with others is refused, alone or in a batch (§5)."""
    a, _ = await tenants(db)

    id = await a.create({"n": 9})
    assert (await db.require(id)).data == {"n": 9, "tenant": "a"}
    assert await a.create(Record({"tenant": "a"}, id="same", metadata={"m": 1})) == "same"
    assert (await db.require("same")).metadata == {"m": 1}
    for wrong in ("b", ["a"], {"x": 1}, True):
        with pytest.raises(InvalidRecordError) as refused:
            await a.create(Record({"tenant": wrong}, id="wrong"))
        assert refused.value.path == "data.tenant"
    await a.create(Record({"tenant": None}, id="null"))  # no value: it gets the scope's
    assert (await db.require("null")).data == {"tenant": "a"}
    outcomes = await a.create_batch([{"n": 1}, {"tenant": "b"}], on_error="collect", atomic=False)
    assert isinstance(outcomes.errors[1], InvalidRecordError)
    assert await db.count(TENANT == "b") == 2
    with pytest.raises(AlreadyExistsError) as taken:
        await a.create(Record({"n": 1}, id="b1"))
    assert taken.value.record_id == "b1"
    receipt = await a.stream_write([{"n": 1}, {"n": 2}])
    assert (receipt.written, await a.count(field("n") == 9)) == (2, 1)


@requires("compare_and_set", "conditional_create")
@pytest.mark.asyncio
async def test_another_scopes_record_is_missing_and_its_id_is_taken(db: AsyncDatabase) -> None:
    """`replace`, `update`, `modify` raise NotFoundError, `delete` is False, `upsert` is refused (§5)."""
    a, _ = await tenants(db)
    before = await everything(db)

    for id in ("b1", "nobody"):
        with pytest.raises(NotFoundError):
            await a.replace(id, {"n": 0})
        with pytest.raises(NotFoundError):
            await a.update(id, {"tenant": "a"})
        with pytest.raises(NotFoundError):
            await a.modify(id, field("n").inc(1))
        with pytest.raises(NotFoundError):
            await a.modify(id, TENANT.set("a"))
        with pytest.raises(AlreadyExistsError):
            await a.upsert(id, {"n": 0})
        assert not await a.delete(id)
    version = (await db.require("b1")).version
    with pytest.raises((NotFoundError, ConflictError)):
        await a.replace("b1", {"n": 0}, if_version=version)
    with pytest.raises(ConflictError):
        await a.delete("b1", if_version=version)
    assert await a.delete_where(field("n").exists() & (TENANT == "b")) == 0
    assert await a.update_where(field("n") == 20, field("n").set(0)) == 0

    assert await everything(db) == before


@requires("compare_and_set", "conditional_create")
@pytest.mark.asyncio
async def test_own_records_are_written_as_without_a_scope(db: AsyncDatabase) -> None:
    """Each way to write works on the scope's own records, versions included (§5)."""
    a, _ = await tenants(db)

    version = await a.update("a1", {"n": 10})
    assert (await a.require("a1")).version == version
    assert await a.replace("a1", {"m": 1}, if_version=version) == (await a.require("a1")).version
    assert (await a.require("a1")).data == {"m": 1, "tenant": "a"}
    with pytest.raises(ConflictError):
        await a.replace("a1", {"m": 2}, if_version=version)
    assert await a.upsert("a1", {"m": 3}) == (await a.require("a1")).version
    assert await a.upsert("new", {"m": 4}) == (await a.require("new")).version
    await a.modify("a2", field("n").inc(5), where=field("n") == 2)
    with pytest.raises(ConflictError):
        await a.modify("a2", field("n").inc(5), where=field("n") == 2)
    assert await a.update_where(field("n") >= 3, field("seen").set(True)) == 2
    assert await a.delete("new")
    assert await a.delete_where(field("m") == 3) == 1
    results = await a.update_batch([("a2", {"x": 1}), ("a2", {"y": 1}), ("a3", {"x": 2})], atomic=False)
    assert results[1] == (await a.require("a2")).version
    assert {id: data for id, data in (await everything(db)).items() if id and id[0] == "a"} == {
        "a2": {"tenant": "a", "n": 7, "seen": True, "x": 1, "y": 1},
        "a3": {"tenant": "a", "n": 3, "seen": True, "x": 2},
    }


@requires("compare_and_set", "conditional_create")
@pytest.mark.asyncio
async def test_no_write_makes_a_record_leave_its_scope(db: AsyncDatabase) -> None:
    """After a write a record holds exactly the scope's values; parents are checked as well (§5)."""
    await put(db, [Record({"org": {"id": 7, "x": 1}, "n": 1}, id="one")])
    org = db.scope(field("org.id") == 7)
    refused: list[Any] = [
        lambda: org.update("one", {"org": {"id": 8}}),
        lambda: org.update("one", {"org": None}),
        lambda: org.replace("one", {"org": {"id": 7.5}}),
        lambda: org.replace("one", {"org": [{"id": 7}]}),
        lambda: org.upsert("one", {"org": {"id": "7"}}),
        lambda: org.upsert("other", {"org": {"id": 8}}),
        lambda: org.modify("one", field("org.id").inc(1)),
        lambda: org.modify("one", field("org.id").unset()),
        lambda: org.modify("one", field("org").set({"x": 2})),
        lambda: org.modify("one", field("org").unset()),
        lambda: org.update_where(field("n") == 1, field("org.id").set(8)),
    ]

    for write in refused:
        with pytest.raises(InvalidRecordError):
            await write()
    assert await everything(db) == {"one": {"org": {"id": 7, "x": 1}, "n": 1}}

    await org.modify("one", field("org").set({"id": 7.0, "x": 3}), field("n").inc(1))
    await org.replace("one", {"n": 3})
    assert await everything(db) == {"one": {"n": 3, "org": {"id": 7}}}


@pytest.mark.asyncio
async def test_a_list_of_scopes_loses_none_of_them_through_one(db: AsyncDatabase) -> None:
    """Another handle may write a record that several scopes see; they do not change who sees it (§5)."""
    await put(db, [Record({"tenant": ["a", "b"], "n": 1}, id="both"), Record({"tenant": "a"}, id="one")])
    a = db.scope(field("tenant") == "a")
    changes = [field("tenant").pull("a"), field("tenant").push("c"), field("tenant").add("c")]

    for change in changes:
        for id in ("both", "one"):
            with pytest.raises(InvalidRecordError) as refused:
                await a.modify(id, change)
            assert refused.value.record_id == id
        with pytest.raises(InvalidRecordError):
            await a.update_where(field("n") == 1, change)
    with pytest.raises(InvalidRecordError):
        await a.update("both", {"n": 2})

    assert await everything(db) == {"both": {"tenant": ["a", "b"], "n": 1}, "one": {"tenant": "a"}}


@requires("compare_and_set", "atomic_batch", "transactions")
@pytest.mark.asyncio
async def test_an_atomic_batch_of_a_scope_is_all_or_nothing(db: AsyncDatabase) -> None:
    """One item of another scope, or one that would leave it, and nothing is written (§5)."""
    a, _ = await tenants(db)
    before = await everything(db)
    batches: list[Any] = [
        lambda: a.update_batch({"a1": {"n": 9}, "b1": {"n": 9}}, atomic=True),
        lambda: a.upsert_batch({"a1": {"n": 9}, "new": {"n": 9}, "b1": {"n": 9}}, atomic=True),
        lambda: a.replace_batch([("a1", {"n": 9}), ("a2", {"tenant": "b"})], atomic=True),
        lambda: a.modify_batch({"a1": [field("n").inc(1)], "b1": [field("n").inc(1)]}, atomic=True),
        lambda: a.create_batch([{"n": 9}, {"tenant": "b"}], atomic=True),
    ]

    for batch in batches:
        with pytest.raises(BatchError):
            await batch()
        assert await everything(db) == before
    assert list(await a.delete_batch(["a1", "b1", "a1"])) == [True, False, False]
    await a.upsert_batch([("a1", {"n": 1}), ("a2", {"n": 2}), ("a1", {"n": 3})])
    assert (await a.require("a1")).data == {"n": 3, "tenant": "a"}


@requires("transactions")
@pytest.mark.asyncio
async def test_a_transaction_of_a_scope_is_confined(db: AsyncDatabase) -> None:
    """The object, its collections and savepoints, and handles that join it each by their own scope (§5)."""
    a, b = await tenants(db)

    async with a.transaction() as tx:
        assert [await tx.get("b1"), await tx.collection(db.collection_name).get("b1")] == [None, None]
        await tx.update("a1", {"n": 100})
        assert (await a.require("a1")).data["n"] == 100
        assert await a.get("b1") is None
        assert (await db.require("b1")).data["n"] == 1
        assert [r.id for r in await b.search()] == ["b1", "b2"]
        async with a.transaction() as inner:
            assert await inner.count() == 3
        async with db.transaction() as whole:
            assert await whole.count() == 6
        async with tx.savepoint() as point:
            assert await point.get("b1") is None
        with pytest.raises(UnsupportedError):
            await native.postgres(tx)
    async with db.transaction() as whole, a.transaction() as tx:
        assert (await whole.count(), await tx.count()) == (6, 3)
    assert await a.run(lambda tx: tx.count()) == 3


@pytest.mark.asyncio
async def test_scopes_nest_and_take_equalities_only(db: AsyncDatabase) -> None:
    """A scope in a scope has both conditions; other operators, lists and None are refused (§5)."""
    await put(db, [Record({"tenant": t, "team": n}, id=f"{t}{n}") for t in "ab" for n in (1, 2)])
    inner = db.scope(TENANT == "a").scope(field("team") == 2)

    assert [r.id for r in await inner.search()] == ["a2"]
    assert [r.id for r in await db.scope((TENANT == "b") & (field("team") == 1)).search()] == ["b1"]
    assert await db.scope(TENANT == "a").scope(TENANT == "b").search() == []
    assert await db.scope(Query().filter("tenant", "=", "b")).count() == 2
    for wrong in (
        TENANT != "a",
        TENANT.in_(["a"]),
        TENANT.starts_with("a"),
        (TENANT == "a") | (TENANT == "b"),
        TENANT == None,  # noqa: E711
        TENANT == ["a"],
        TENANT == {"id": 1},
        field("_id") == "a1",
        field("_metadata.tenant") == "a",
        Query(),
    ):
        with pytest.raises(QueryError):
            db.scope(wrong)
    with pytest.raises(UnsupportedError):
        await inner.drop_collection(inner.collection_name)
    with pytest.raises(UnsupportedError):
        await native.postgres(inner)


@pytest.mark.asyncio
async def test_clear_deletes_the_records_of_the_scope(db: AsyncDatabase) -> None:
    """In the default collection and in others (§5)."""
    a, b = await tenants(db)

    assert await a.clear() == 3
    assert (await a.count(), await b.count(), await db.count()) == (0, 2, 3)


@requires("row_security")
@pytest.mark.asyncio
async def test_a_scope_with_row_security_means_the_same(db: AsyncDatabase) -> None:
    """With or without policies in the store; a transaction belongs to the scope that opened it (§5)."""
    await put(db, [Record({"tenant": t, "n": n}, id=f"{t}{n}") for t in "ab" for n in range(3)])
    a = db.scope(TENANT == "a", row_security=True)

    assert [r.id for r in await a.search()] == ["a0", "a1", "a2"]
    assert (await a.get("b0"), await a.delete("b0"), await a.count()) == (None, False, 3)
    await a.upsert("a3", {"n": 3})
    async with a.transaction() as tx:
        await tx.update("a3", {"n": 4})
        assert await a.count(field("n") == 4) == 1
        with pytest.raises(UsageError):
            await db.count()
    assert (await db.require("a3")).data == {"n": 4, "tenant": "a"}
