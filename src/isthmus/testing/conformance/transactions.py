"""Transactions: commit, rollback, reading own writes, savepoints and locks, or a refusal."""

from __future__ import annotations

import asyncio
import contextvars
from functools import partial

import pytest

from isthmus import AsyncDatabase, Query, Record, Transaction, field
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
async def test_a_transaction_commits_on_exit(db: AsyncDatabase) -> None:
    """Its creates, updates and deletes are stored."""
    await store(db, {"a": {"n": 1}, "b": {"n": 1}})

    async with db.transaction() as tx:
        await tx.update("a", {"n": 2})
        await tx.delete("b")
        await tx.create(Record({"n": 3}, id="c"))

    assert {r.id: r.data["n"] for r in await db.search()} == {"a": 2, "c": 3}


@requires("transactions")
@pytest.mark.asyncio
async def test_a_transaction_rolls_back_on_an_exception(db: AsyncDatabase) -> None:
    """Any exception undoes all of its writes."""
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
    """In get, search, count, stream, page and aggregate."""
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
async def test_calls_in_the_same_task_join_the_transaction(db: AsyncDatabase) -> None:
    """`db.create(...)` inside `async with db.transaction()` is part of the transaction."""
    with pytest.raises(ZeroDivisionError):
        async with db.transaction():
            await db.create(Record({"n": 1}, id="x"))
            assert await db.exists("x")
            raise ZeroDivisionError

    assert await db.get("x") is None


@requires("transactions")
@pytest.mark.asyncio
async def test_a_child_task_does_not_join_silently(db: AsyncDatabase) -> None:
    """It raises a UsageError that says to pass the transaction."""
    async with db.transaction():
        with pytest.raises(UsageError, match="pass tx"):
            await asyncio.create_task(db.count())


@requires("transactions")
@pytest.mark.asyncio
async def test_uncommitted_writes_are_not_visible_to_others(db: AsyncDatabase) -> None:
    """Others see the previous state at once, or wait for the end if there is only one connection."""
    await store(db, {"a": {"n": 1}})
    single_connection = db.stats().pool.max_size == 1

    async with db.transaction() as tx:
        await tx.update("a", {"n": 2})
        # A task with an empty context does not join: it stands for another user of the store.
        outside = asyncio.create_task(db.require("a"), context=contextvars.Context())
        if not single_connection:
            assert (await outside).data["n"] == 1
        await tx.update("a", {"n": 3})

    assert (await outside).data["n"] == (3 if single_connection else 1)
    assert (await db.require("a")).data["n"] == 3


@requires("transactions")
@pytest.mark.asyncio
async def test_a_transaction_continues_after_a_failed_item(db: AsyncDatabase) -> None:
    """The error of one item can be caught, and the transaction continues and commits."""
    await store(db, {"a": {"n": 1}})

    async with db.transaction() as tx:
        await tx.create(Record({"n": 2}, id="b"))
        with pytest.raises(AlreadyExistsError):
            await tx.create(Record({"n": 9}, id="a"))
        await tx.create(Record({"n": 3}, id="c"))

    assert {r.id: r.data["n"] for r in await db.search()} == {"a": 1, "b": 2, "c": 3}


@requires("transactions")
@pytest.mark.asyncio
async def test_a_finished_transaction_is_closed(db: AsyncDatabase) -> None:
    """Its methods raise ClosedError instead of running outside the transaction."""
    async with db.transaction() as tx:
        pass

    with pytest.raises(ClosedError):
        await tx.count()


@requires("transactions", "savepoints")
@pytest.mark.asyncio
async def test_a_nested_transaction_is_a_savepoint(db: AsyncDatabase) -> None:
    """It is rolled back alone; the outer transaction commits the rest."""
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
    """Reads work; a write raises TransactionError and changes nothing."""
    await store(db, {"a": {"n": 1}})

    with pytest.raises(TransactionError):
        async with db.transaction(read_only=True) as tx:
            assert await tx.count() == 1
            await tx.upsert("a", {"n": 2})

    assert (await db.require("a")).data == {"n": 1}


@requires("transactions", "for_update")
@pytest.mark.asyncio
async def test_a_read_only_transaction_refuses_locks(db: AsyncDatabase) -> None:
    """A read for update is refused as a write is, before the store sees it."""
    await store(db, {"a": {"n": 1}})

    with pytest.raises(TransactionError, match="read-only"):
        async with db.transaction(read_only=True) as tx:
            await tx.get("a", for_update=True)
    with pytest.raises(TransactionError, match="read-only"):
        async with db.transaction(read_only=True) as tx:
            await tx.search(for_update=True)


@requires("transactions", "for_update")
@pytest.mark.asyncio
async def test_a_locked_record_is_updated_by_one_transaction_at_a_time(db: AsyncDatabase) -> None:
    """Ten transactions that read for update and increment a number count to ten."""
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
async def test_a_transaction_is_run_again_after_a_serialization_failure(db: AsyncDatabase) -> None:
    """`run` calls the function again until it commits; other errors are raised at once."""
    await store(db, {"a": {"n": 0}})
    attempts = []

    async def work(tx: object) -> str:
        attempts.append(1)
        await db.update("a", {"n": len(attempts)})
        if len(attempts) < 3:
            raise SerializationError("raised by this test")
        return "done"

    assert await db.run(work) == "done"
    assert (await db.require("a")).data == {"n": 3}
    with pytest.raises(ZeroDivisionError):
        await db.run(_fails)


async def _fails(tx: object) -> None:
    raise ZeroDivisionError


@requires("transactions")
@pytest.mark.asyncio
async def test_run_loses_no_concurrent_update(db: AsyncDatabase) -> None:
    """Many tasks read a number and write the next one; none of the steps is lost."""
    await store(db, {"a": {"n": 0}})

    async def increment(tx: Transaction) -> None:
        n = (await tx.require("a"))["n"]
        await tx.update("a", {"n": n + 1})

    await asyncio.gather(*(db.run(increment) for _ in range(50)))

    assert (await db.require("a")).data == {"n": 50}


@requires("transactions")
@pytest.mark.asyncio
async def test_runs_keep_a_rule_over_several_records(db: AsyncDatabase) -> None:
    """Each takes 1 from another record if both together hold enough: never more than there is."""
    await store(db, {"a": {"n": 4}, "b": {"n": 4}})

    async def take(tx: Transaction, id: str) -> bool:
        held = {record.id: record["n"] for record in await tx.search()}
        await asyncio.sleep(0)
        if sum(held.values()) < 3:
            return False
        await tx.update(id, {"n": held[id] - 1})
        return True

    taken = await asyncio.gather(*(db.run(partial(take, id="ab"[n % 2])) for n in range(20)))

    assert sum(taken) == 6
    assert sum([record["n"] for record in await db.search()]) == 2


@requires("transactions", "savepoints")
@pytest.mark.asyncio
async def test_a_run_inside_a_run_is_a_savepoint_of_it(db: AsyncDatabase) -> None:
    """A conflict undoes the whole transaction, so the outer function is what runs again."""
    await store(db, {"a": {"n": 0}})
    outer_runs, inner_runs = [], []

    async def inner(tx: Transaction) -> None:
        inner_runs.append(1)
        await tx.update("a", {"n": len(inner_runs)})
        if len(inner_runs) == 1:
            raise SerializationError("raised by this test")

    async def outer(tx: Transaction) -> None:
        outer_runs.append(1)
        await db.run(inner)

    await db.run(outer)

    assert (len(outer_runs), len(inner_runs)) == (2, 2)
    assert (await db.require("a")).data == {"n": 2}


@requires("transactions", "savepoints")
@pytest.mark.asyncio
async def test_a_run_inside_a_transaction_of_a_lower_level_is_refused(db: AsyncDatabase) -> None:
    """Its promise could not hold there; where serializable is the only level it is a savepoint."""
    await store(db, {"a": {"n": 0}})

    async def work(tx: Transaction) -> None:
        await tx.update("a", {"n": 1})

    levels: list[str | None] = [*sorted(db.capabilities.isolation)] or [None]
    for level in levels:
        async with db.transaction(isolation=level):
            if level in ("serializable", None):
                await db.run(work)
            else:
                with pytest.raises(UsageError, match="serializable"):
                    await db.run(work)
                await db.run(work, isolation=level)

    assert (await db.require("a")).data == {"n": 1}


@requires("transactions")
@pytest.mark.asyncio
async def test_an_unknown_isolation_level_is_refused(db: AsyncDatabase) -> None:
    """Each level in the capabilities works, any other raises UnsupportedError."""
    for level in sorted(db.capabilities.isolation):
        async with db.transaction(isolation=level) as tx:
            await tx.upsert("a", {"level": level})
    if db.capabilities.transactions:
        with pytest.raises(UnsupportedError):
            db.transaction(isolation="chaos")
    else:
        db.transaction()
