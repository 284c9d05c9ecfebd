"""Transactions: commit, roll back, read one's own writes, savepoints, locks; or a clear refusal."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import (
    AlreadyExistsError,
    ClosedError,
    SerializationError,
    TransactionError,
    UnsupportedError,
    UsageError,
)
from isthmus.testing.conformance._fixtures import id_set, requires, store, store_people


@requires("transactions")
@pytest.mark.asyncio
async def test_a_transaction_commits_on_leaving(db: AsyncDatabase) -> None:
    """Creates, updates and deletes in it are there afterwards."""
    await store(db, {"a": {"n": 1}, "b": {"n": 1}})

    async with db.transaction() as tx:
        await tx.update("a", {"n": 2})
        await tx.delete("b")
        await tx.create(Record({"n": 3}, id="c"))

    assert {r.id: r.data["n"] for r in await db.search()} == {"a": 2, "c": 3}


@requires("transactions")
@pytest.mark.asyncio
async def test_a_transaction_rolls_back_on_an_exception(db: AsyncDatabase) -> None:
    """Whatever raised; nothing of it is left."""
    await store(db, {"a": {"n": 1}})

    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            await tx.update("a", {"n": 2})
            await tx.create_batch([{"n": 3}, {"n": 4}])
            await tx.delete_where(field("n") == 1)
            raise ZeroDivisionError

    assert {r.id: r.data["n"] for r in await db.search()} == {"a": 1}


@requires("transactions")
@pytest.mark.asyncio
async def test_a_transaction_reads_its_own_writes(db: AsyncDatabase) -> None:
    """By id, by search, count, stream, page and aggregate."""
    await store_people(db)

    async with db.transaction() as tx:
        await tx.create(Record({"age": 200}, id="zed"))
        await tx.update("bob", {"age": 201})
        await tx.delete("carol")

        assert (await tx.require("bob")).data["age"] == 201
        assert await tx.get("carol") is None
        assert [r.id for r in await tx.search(Query().sort("age", "desc").limit(2))] == ["bob", "zed"]
        assert await tx.count() == 5
        assert {r.id async for r in tx.stream(field("age") > 100, page_size=1)} == id_set("bob zed")
        assert [r.id for r in (await tx.page(Query(), size=2)).records] == ["alice", "bob"]
        assert await tx.aggregate(m=("max", "age")) == [{"m": 201}]


@requires("transactions")
@pytest.mark.asyncio
async def test_the_handles_verbs_join_in_the_same_task(db: AsyncDatabase) -> None:
    """`db.create(...)` inside `async with db.transaction()` is part of it."""
    with pytest.raises(ZeroDivisionError):
        async with db.transaction():
            await db.create(Record({"n": 1}, id="x"))
            assert await db.exists("x")
            raise ZeroDivisionError

    assert await db.get("x") is None


@requires("transactions")
@pytest.mark.asyncio
async def test_a_child_task_does_not_join_silently(db: AsyncDatabase) -> None:
    """It is told to pass the transaction."""
    async with db.transaction():
        with pytest.raises(UsageError, match="pass tx"):
            await asyncio.create_task(db.count())


@requires("transactions")
@pytest.mark.asyncio
async def test_others_do_not_see_what_is_not_committed(db: AsyncDatabase) -> None:
    """A reader outside sees the state before, at once; if there is one connection, it waits for the end."""
    await store(db, {"a": {"n": 1}})
    alone = db.stats().pool.max_size == 1

    async with db.transaction() as tx:
        await tx.update("a", {"n": 2})
        # A task of its own, which does not join: another user of the store.
        outside = asyncio.create_task(db.require("a"), context=contextvars.Context())
        if not alone:
            assert (await outside).data["n"] == 1
        await tx.update("a", {"n": 3})

    assert (await outside).data["n"] == (3 if alone else 1)
    assert (await db.require("a")).data["n"] == 3


@requires("transactions")
@pytest.mark.asyncio
async def test_an_error_inside_leaves_the_rest_usable(db: AsyncDatabase) -> None:
    """A refused item is caught and the transaction goes on and commits."""
    await store(db, {"a": {"n": 1}})

    async with db.transaction() as tx:
        await tx.create(Record({"n": 2}, id="b"))
        with pytest.raises(AlreadyExistsError):
            await tx.create(Record({"n": 9}, id="a"))
        await tx.create(Record({"n": 3}, id="c"))

    assert {r.id: r.data["n"] for r in await db.search()} == {"a": 1, "b": 2, "c": 3}


@requires("transactions")
@pytest.mark.asyncio
async def test_a_transaction_that_has_ended_is_closed(db: AsyncDatabase) -> None:
    """Its verbs raise instead of running outside."""
    async with db.transaction() as tx:
        pass

    with pytest.raises(ClosedError):
        await tx.count()


@requires("transactions", "savepoints")
@pytest.mark.asyncio
async def test_a_nested_transaction_is_a_savepoint(db: AsyncDatabase) -> None:
    """Undone alone; the outer one commits what is left."""
    async with db.transaction() as tx:
        await tx.create(Record({}, id="outer"))
        with pytest.raises(ZeroDivisionError):
            async with db.transaction():
                await db.create(Record({}, id="inner"))
                raise ZeroDivisionError
        async with tx.savepoint():
            await tx.create(Record({}, id="kept"))
            async with tx.savepoint():
                await tx.create(Record({}, id="deeper"))

    assert {r.id for r in await db.search()} == id_set("outer kept deeper")


@requires("transactions")
@pytest.mark.asyncio
async def test_a_read_only_transaction_refuses_writes(db: AsyncDatabase) -> None:
    """It reads; a write is a TransactionError and changes nothing."""
    await store(db, {"a": {"n": 1}})

    with pytest.raises(TransactionError):
        async with db.transaction(read_only=True) as tx:
            assert await tx.count() == 1
            await tx.upsert("a", {"n": 2})

    assert (await db.require("a")).data == {"n": 1}


@requires("transactions", "for_update")
@pytest.mark.asyncio
async def test_a_locked_record_waits_for_its_holder(db: AsyncDatabase) -> None:
    """Ten transactions that read for update and add one: ten in the end."""
    await store(db, {"a": {"n": 0}})

    async def add() -> None:
        async with db.transaction() as tx:
            record = await tx.require("a", for_update=True)
            await asyncio.sleep(0)
            await tx.update("a", {"n": record.data["n"] + 1})

    await asyncio.gather(*(add() for _ in range(10)))

    assert (await db.require("a")).data == {"n": 10}


@requires("transactions")
@pytest.mark.asyncio
async def test_a_whole_transaction_is_run_again_on_a_serialization_failure(db: AsyncDatabase) -> None:
    """`run` repeats the function until it commits; other errors are raised at once."""
    await store(db, {"a": {"n": 0}})
    attempts = []

    async def work(tx: object) -> str:
        attempts.append(1)
        await db.update("a", {"n": len(attempts)})
        if len(attempts) < 3:
            raise SerializationError("made up for this test")
        return "done"

    assert await db.run(work) == "done"
    assert (await db.require("a")).data == {"n": 3}
    with pytest.raises(ZeroDivisionError):
        await db.run(_fails)


async def _fails(tx: object) -> None:
    raise ZeroDivisionError


@requires("transactions")
@pytest.mark.asyncio
async def test_an_unknown_isolation_level_is_refused(db: AsyncDatabase) -> None:
    """Each level that the capabilities name works, any other is an UnsupportedError."""
    for level in sorted(db.capabilities.isolation):
        async with db.transaction(isolation=level) as tx:
            await tx.upsert("a", {"level": level})
    if db.capabilities.transactions:
        with pytest.raises(UnsupportedError):
            db.transaction(isolation="chaos")
    else:
        db.transaction()
