"""Lifecycle of a database handle: open, concurrent use, close, reopen; statistics and plans."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import ClosedError, UnsupportedError
from isthmus.testing.conformance._fixtures import Database, drop_collection, put_one, requires, store_people


@pytest.mark.asyncio
async def test_a_closed_handle_refuses_every_call(db: AsyncDatabase) -> None:
    """Writes and reads raise ClosedError; closing twice is allowed."""
    await put_one(db, Record({"n": 1}, id="x"))
    await db.close()
    await db.close()

    assert db.closed
    for call in (lambda: db.get("x"), lambda: db.create({}), db.search, db.count):
        with pytest.raises(ClosedError):
            await call()
    with pytest.raises(ClosedError):
        async for _ in db.stream():
            pass


@pytest.mark.asyncio
async def test_a_closed_handle_can_be_opened_again(db: AsyncDatabase) -> None:
    """`connect()` reopens it; a durable store still has its records."""
    await put_one(db, Record({"n": 1}, id="x"))
    await db.close()

    await db.connect()

    await db.upsert("y", {"n": 2})
    assert await db.exists("y")
    if db.capabilities.durable and getattr(db.config, "path", "") != ":memory:":
        assert (await db.require("x")).data == {"n": 1}


@pytest.mark.asyncio
async def test_close_waits_for_the_calls_under_way(db: AsyncDatabase) -> None:
    """They end as if nobody closed the handle, and it stays closed."""
    await put_one(db, Record({}, id="x"))
    calls = [asyncio.create_task(db.upsert(f"y{n}", {"n": n})) for n in range(8)]
    await asyncio.sleep(0)

    await db.close()

    assert all(call.done() for call in calls)
    assert await asyncio.gather(*calls) is not None
    assert db.closed
    await db.connect()
    if db.capabilities.durable and getattr(db.config, "path", "") != ":memory:":
        assert await db.count(field("n") >= 0) == 8


@requires("transactions")
@pytest.mark.asyncio
async def test_an_open_transaction_outlives_close(db: AsyncDatabase) -> None:
    """Its calls run and it is committed; the handle takes no others."""
    async with db.transaction() as tx:
        await tx.create(Record({"n": 1}, id="x"))
        # In tasks of their own: calls in this one belong to the transaction.
        closing = asyncio.create_task(db.close(), context=contextvars.Context())
        await asyncio.sleep(0.05)
        with pytest.raises(ClosedError):
            await asyncio.create_task(db.count(), context=contextvars.Context())
        await tx.create(Record({"n": 2}, id="y"))
    await closing

    assert db.closed
    await db.connect()
    if db.capabilities.durable and getattr(db.config, "path", "") != ":memory:":
        assert await db.count() == 2


@pytest.mark.asyncio
async def test_a_handle_of_a_closed_one_is_closed(db: AsyncDatabase) -> None:
    """It shares the pool of the handle that it was derived from, and works when that is opened again."""
    derived = db.options(deadline=20)
    await put_one(derived, Record({"n": 1}, id="x"))

    await db.close()

    assert derived.closed
    with pytest.raises(ClosedError):
        await derived.get("x")
    calls: list[Callable[[], Awaitable[object]]] = [derived.connect, derived.ping, derived.collections]
    if db.capabilities.drop:
        calls.append(lambda: derived.drop_collection("x"))
    if db.capabilities.transactions:
        calls.append(lambda: derived.transaction().__aenter__())
        calls.append(lambda: derived.run(lambda tx: tx.get("x")))
    for call in calls:
        with pytest.raises(ClosedError):
            await call()
    await db.connect()
    await derived.upsert("y", {})
    assert await derived.exists("y")


@pytest.mark.asyncio
@pytest.mark.parametrize("steps", [1, 3, 20])
async def test_closing_a_handle_ends_its_connecting(db: AsyncDatabase, steps: int) -> None:
    """The handle stays closed, although it was about to open."""
    await db.close()
    connecting = asyncio.create_task(db.connect())
    for _ in range(steps):
        await asyncio.sleep(0)
    was_connected = connecting.done()

    await db.close()

    assert db.closed
    assert connecting.done()
    if not was_connected:
        with pytest.raises(ClosedError):
            await connecting
    assert db.closed


@pytest.mark.asyncio
async def test_many_tasks_share_a_handle(db: AsyncDatabase) -> None:
    """30 tasks write and search concurrently."""

    async def work(n: int) -> None:
        id = await put_one(db, {"n": n})
        assert (await db.require(id)).data == {"n": n}
        assert await db.count(field("n") == n) == 1
        await db.upsert(id, {"n": n, "seen": True})

    await asyncio.gather(*(work(n) for n in range(30)))

    assert await db.count(field("seen") == True) == 30  # noqa: E712


@pytest.mark.asyncio
async def test_two_handles_have_their_own_records(db: AsyncDatabase, database: Database) -> None:
    """A new collection is empty, and closing one handle does not affect the other."""
    await store_people(db)
    other = await database()
    try:
        assert await other.count() == 0
        await put_one(other, Record({"n": 1}, id="alice"))
    finally:
        await drop_collection(other, other.collection_name)
        await other.close()

    assert await db.count() == 5
    assert (await db.require("alice")).data["age"] == 30


@pytest.mark.asyncio
async def test_collections_are_separate(db: AsyncDatabase) -> None:
    """Another collection on the same pool has its own records under the same ids."""
    other = db.collection(f"{db.collection_name}_other")
    try:
        await db.upsert("x", {"where": "default"})
        await other.upsert("x", {"where": "other"})

        assert (await db.require("x")).data == {"where": "default"}
        assert (await other.require("x")).data == {"where": "other"}
        assert await other.delete("x") is True
        assert await db.exists("x")
        assert {db.collection_name, other.collection_name} >= {
            name for name in await db.collections() if name.startswith(db.collection_name)
        }
    finally:
        await drop_collection(db, other.collection_name)


@pytest.mark.asyncio
async def test_a_handle_describes_itself(db: AsyncDatabase) -> None:
    """Its name, capabilities and statistics of the pool."""
    await db.ping()
    await db.refresh()

    stats = db.stats()

    assert db.backend in repr(db)
    assert stats.backend == db.backend
    assert stats.pool.in_use == 0
    assert stats.pool.waiting == 0
    assert db.capabilities == db._backend.capabilities


@pytest.mark.asyncio
async def test_explain_reports_what_the_store_evaluates(db: AsyncDatabase) -> None:
    """It reports the pushdown of each leaf, and the pushed and residual parts of the query."""
    await store_people(db)

    plan = await db.explain(Query().filter("age", ">", 9).filter("name", "regex", r"\bA").sort("age"))

    assert plan.backend == db.backend
    assert plan.native
    assert "age" in str(plan)
    assert len(plan.tree.parts) == 2
    assert (plan.residual == "true") == all(part.pushdown.name == "EXACT" for part in plan.tree.parts)


@pytest.mark.asyncio
async def test_a_policy_refuses_client_side_evaluation(db: AsyncDatabase) -> None:
    """With `residual="refuse"` a query either runs entirely in the store or raises UnsupportedError."""
    from isthmus import Policy

    await store_people(db)
    strict = db.options(policy=Policy(residual="refuse"))
    query = Query().filter("name", "regex", r"\bA").sort("age")

    if (await db.explain(query)).exact:
        assert [r.id for r in await strict.search(query)] == ["alice"]
    else:
        with pytest.raises(UnsupportedError):
            await strict.search(query)
    assert [r.id for r in await db.search(query)] == ["alice"]


@pytest.mark.asyncio
async def test_a_lazy_handle_connects_on_its_first_call(db: AsyncDatabase) -> None:
    """`lazy=True` defers the connection."""
    lazy = await AsyncDatabase.create(db.backend, db.config, lazy=True)
    try:
        assert not lazy.closed
        await lazy.ping()
        assert await lazy.count() == 0
    finally:
        await lazy.close()


@requires("drop")
@pytest.mark.asyncio
async def test_a_dropped_collection_is_empty_until_the_next_write(db: AsyncDatabase) -> None:
    """Through every open handle reads find nothing, and the next write creates the collection again."""
    await store_people(db)
    await db.refresh()
    other = await AsyncDatabase.create(db.backend, db.config)
    try:
        one_store = await other.count() == 5  # a store in memory belongs to its handle
        for dropping, writing in ((db, other), (other, db)):
            await dropping.drop_collection(db.collection_name)
            await dropping.drop_collection(db.collection_name)

            for handle in (db, other) if one_store else (dropping,):
                assert await handle.get_batch(["alice", "bob"]) == [None, None]
                assert not await handle.exists("alice")
                assert await handle.search(Query().filter("age", ">", 1).sort("age")) == []
                assert await handle.count() == 0
                assert [record async for record in handle.stream()] == []
                assert await handle.aggregate(by="age", n="count") == []

            await put_one(writing, Record({"age": 7}, id="alice"))
            await writing.refresh()
            for handle in (db, other) if one_store else (writing,):
                assert (await handle.require("alice")).data == {"age": 7}
                assert await handle.count(field("age") == 7) == 1
    finally:
        await other.close()
